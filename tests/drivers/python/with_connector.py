"""mysql-connector-python, its pure Python implementation."""

import mysql.connector
from checks import DATABASE, HOST, PASSWORD, PORT, TLS, USER, DbApi


def open_connection(tls, local_infile):
    return mysql.connector.connect(
        host=HOST,
        port=PORT,
        user=USER,
        password=PASSWORD,
        database=DATABASE,
        charset="utf8mb4",
        use_pure=True,
        allow_local_infile=local_infile,
        ssl_disabled=not tls,
    )


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
    exercise.finish()


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
