"""PyMySQL."""

import pymysql
from checks import DATABASE, HOST, OTHER_DATABASE, PASSWORD, PORT, TLS, USER, DbApi, large_value
from pymysql.constants import CLIENT


def connect(multi=False, local_infile=False):
    connection = pymysql.connect(
        host=HOST,
        port=PORT,
        user=USER,
        password=PASSWORD,
        database=DATABASE,
        charset="utf8mb4",
        client_flag=CLIENT.MULTI_STATEMENTS if multi else 0,
        local_infile=local_infile,
        max_allowed_packet=64 * 1024 * 1024,
        ssl={"check_hostname": False, "verify_mode": None} if TLS else None,
        ssl_disabled=not TLS,
    )
    if TLS and not connection._secure:
        raise SystemExit("not TLS")
    return connection


def main():
    exercise = DbApi("pymysql", connect, pymysql.err.MySQLError)
    check, connection = exercise.check, exercise.connection
    exercise.run()
    with connection.cursor() as cursor:
        cursor.execute("SELECT 1; SELECT 'two'; SET @m = 3; SELECT @m")
        results = [list(cursor.fetchall())]
        while cursor.nextset():
            results.append(list(cursor.fetchall()))
        check.equal("multi-statements", results, [[(1,)], [("two",)], [], [(3,)]])
        value = large_value()
        cursor.execute("SELECT LENGTH(%s)", (value[: 12 * 1024 * 1024],))
        check.equal("12 MB of bytes as a parameter", cursor.fetchone()[0], 12 * 1024 * 1024)
    with pymysql.cursors.SSCursor(connection) as cursor:
        cursor.execute("SELECT a.n * 100 + b.n FROM " + ", ".join(f"({digits()}) {name}" for name in "ab") + " ORDER BY 1")
        check.equal("unbuffered rows", [row[0] for row in cursor], [a * 100 + b for a in range(40) for b in range(40)])
    connection.select_db(OTHER_DATABASE)
    check.equal("select_db", exercise.one("SELECT DATABASE()"), OTHER_DATABASE)
    connection.select_db(DATABASE)
    connection.ping(reconnect=False)
    check.equal("after ping", exercise.one("SELECT 9"), 9)
    connection.autocommit(True)
    check.equal("autocommit", connection.get_autocommit(), True)
    exercise.finish()


def digits():
    return " UNION ALL ".join(f"SELECT {i}" + (" AS n" if i == 0 else "") for i in range(40))


main()
