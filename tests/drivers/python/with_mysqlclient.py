"""mysqlclient, over MariaDB's C library."""

import MySQLdb
from checks import DATABASE, HOST, PASSWORD, PORT, TLS, USER, DbApi
from MySQLdb.constants import CLIENT


def connect(multi=False, local_infile=False):
    options = {"ssl_mode": "REQUIRED"} if TLS else {"ssl_mode": "DISABLED"}
    return MySQLdb.connect(
        host=HOST,
        port=PORT,
        user=USER,
        password=PASSWORD,
        database=DATABASE,
        charset="utf8mb4",
        client_flag=CLIENT.MULTI_STATEMENTS if multi else 0,
        local_infile=1 if local_infile else 0,
        **options,
    )


def main():
    exercise = DbApi("mysqlclient", connect, MySQLdb.Error)
    check, connection = exercise.check, exercise.connection
    exercise.run()
    cursor = connection.cursor()
    cursor.execute("SELECT 1; SELECT 'two'; SET @m = 3; SELECT @m")
    results = [cursor.fetchall()]
    while cursor.nextset():
        results.append(cursor.fetchall())
    check.equal("multi-statements", results, [((1,),), (("two",),), (), ((3,),)])
    cursor.close()
    connection.ping()
    check.equal("after ping", exercise.one("SELECT 9"), 9)
    check.true("COM_STATISTICS", "Uptime" in connection.stat())
    exercise.rows("SET @gone = 1")
    connection.change_user(USER, PASSWORD, DATABASE)
    check.equal("change_user forgets", exercise.one("SELECT @gone"), None)
    check.equal("change_user keeps the database asked for", exercise.one("SELECT DATABASE()"), DATABASE)
    # Ten clients, each pinned until it changes its user: then they are as new, and none keeps another waiting.
    clients = [connect() for _ in range(10)]
    for client in clients:
        exercise.rows("SET @gone = 1", connection=client)
        client.change_user(USER, PASSWORD, DATABASE)
    for client in clients:
        check.equal("as new", exercise.one("SELECT DATABASE()", connection=client), DATABASE)
        client.close()
    exercise.finish()


main()
