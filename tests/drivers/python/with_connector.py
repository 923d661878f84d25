"""mysql-connector-python, its pure Python implementation."""

import threading

import mysql.connector
import mysql.connector.pooling
from checks import DATABASE, HOST, PASSWORD, PORT, TLS, USER, DbApi


def options(tls, local_infile):
    return {
        "host": HOST,
        "port": PORT,
        "user": USER,
        "password": PASSWORD,
        "database": DATABASE,
        "charset": "utf8mb4",
        "use_pure": True,
        "allow_local_infile": local_infile,
        "ssl_disabled": not tls,
    }


def open_connection(tls, local_infile):
    return mysql.connector.connect(**options(tls, local_infile))


def connect(multi=False, local_infile=False):  # several statements need no asking here
    if TLS:
        return open_connection(True, local_infile)
    try:
        return open_connection(False, local_infile)
    except mysql.connector.Error:
        # Without TLS it cannot do caching_sha2_password's full exchange; one login over TLS makes the short one do.
        open_connection(True, False).close()
        return open_connection(False, local_infile)


def main():
    exercise = DbApi("connector-python", connect, mysql.connector.Error)
    check, connection = exercise.check, exercise.connection
    exercise.run()
    cursor = connection.cursor()
    cursor.execute("SELECT 1; SELECT 'two'; SET @m = 3; SELECT @m")
    results = [cursor.fetchall()]
    while cursor.nextset():
        results.append(cursor.fetchall() if cursor.description else [])
    check.equal("multi-statements", results, [[(1,)], [("two",)], [], [(3,)]])
    cursor.close()
    prepared(exercise)
    connection.ping()
    check.equal("after ping", exercise.one("SELECT 9"), 9)
    exercise.rows("SET @gone = 1")
    connection.cmd_reset_connection()
    check.equal("reset forgets", exercise.one("SELECT @gone"), None)
    exercise.rows("SET @gone = 1")
    connection.cmd_change_user(USER, PASSWORD, DATABASE)
    check.equal("change_user forgets", exercise.one("SELECT @gone"), None)
    check.equal("change_user keeps the database asked for", exercise.one("SELECT DATABASE()"), DATABASE)
    pooled(check)
    exercise.finish()


def pooled(check):
    """Its own pool resets a connection that is handed back, so more of them than Sidepool has may set user variables."""
    pool = mysql.connector.pooling.MySQLConnectionPool(pool_size=10, pool_name="many", **options(TLS, False))
    seen = []

    def turns(number):
        for _ in range(3):
            connection = pool.get_connection()
            try:
                cursor = connection.cursor()
                cursor.execute("SELECT @mine")
                before = cursor.fetchone()[0]
                cursor.execute("SET @mine = %s", (number,))
                cursor.execute("SELECT @mine")
                seen.append((before, cursor.fetchone()[0] == number))
                cursor.close()
            finally:
                connection.close()

    threads = [threading.Thread(target=turns, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check.equal("through its pool", seen, [(None, True)] * 30)


def prepared(exercise):
    cursor = exercise.connection.cursor(prepared=True)
    for i in range(3):
        cursor.execute("SELECT %s + 1, %s, %s", (i, "é😀", None))
        exercise.check.equal("prepared", [tuple(row) for row in cursor.fetchall()], [(i + 1, "é😀", None)])
    cursor.execute(f"INSERT INTO {exercise.table} (name, big) VALUES (%s, %s)", ("prepared", b"\xff\x00" * 500))
    exercise.check.equal("prepared insert", cursor.rowcount, 1)
    exercise.connection.commit()
    cursor.execute(f"SELECT big FROM {exercise.table} WHERE name = %s", ("prepared",))
    exercise.check.equal("prepared binary", bytes(cursor.fetchall()[0][0]), b"\xff\x00" * 500)
    cursor.close()


main()
