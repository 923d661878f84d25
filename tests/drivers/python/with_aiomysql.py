"""aiomysql: many tasks of one process over a pool of its own."""

import asyncio
import ssl
import warnings

import aiomysql
from checks import DATABASE, HOST, OTHER_DATABASE, PASSWORD, PORT, TLS, TYPES, TYPES_EXPECTED, USER, Checks

TABLE = "t_aiomysql"


def options():
    context = None
    if TLS:
        context = ssl.create_default_context()
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return {
        "host": HOST,
        "port": PORT,
        "user": USER,
        "password": PASSWORD,
        "db": DATABASE,
        "charset": "utf8mb4",
        "ssl": context,
    }


async def rows(connection, sql, args=None):
    async with connection.cursor() as cursor:
        await cursor.execute(sql, args)
        return list(await cursor.fetchall())


async def task(pool, check, number, pinned):
    """Five transactions in a session of its own settings; with a user variable the session is pinned by Sidepool."""
    mine = "@mine" if pinned else "0"
    for turn in range(5):
        async with pool.acquire() as connection:
            await rows(connection, "SET time_zone = %s", (f"+{number % 12:02}:00",))
            if pinned:
                await rows(connection, "SET @mine = %s", (number,))
            await connection.begin()
            name = f"{number}/{turn}/{mine}"
            await rows(connection, f"INSERT INTO {TABLE} (name) VALUES (%s)", (name,))
            seen = await rows(connection, f"SELECT {mine}, @@time_zone, name FROM {TABLE} WHERE id = LAST_INSERT_ID()")
            check.equal("own session", seen, [(number if pinned else 0, f"+{number % 12:02}:00", name)])
            await (connection.commit() if turn % 2 == 0 else connection.rollback())


async def main():
    warnings.simplefilter("ignore")  # it turns the server's notes into Python warnings
    check = Checks("aiomysql")
    connection = await aiomysql.connect(**options())
    await rows(connection, f"DROP TABLE IF EXISTS {TABLE}")
    await rows(connection, f"CREATE TABLE {TABLE} (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE)")
    check.equal("types", (await rows(connection, TYPES))[0], TYPES_EXPECTED)
    async with connection.cursor() as cursor:
        await cursor.execute(f"INSERT INTO {TABLE} (name) VALUES ('a'), ('b')")
        check.equal("affected rows", cursor.rowcount, 2)
        check.equal("last insert id", cursor.lastrowid, 1)
    await connection.commit()
    try:
        await rows(connection, f"INSERT INTO {TABLE} (name) VALUES ('a')")
    except aiomysql.MySQLError as error:
        check.equal("duplicate key", error.args[0], 1062)
    else:
        check.fail("duplicate key", "no error")
    await connection.rollback()
    await connection.ping(reconnect=False)
    await connection.select_db(OTHER_DATABASE)
    check.equal("select_db", await rows(connection, "SELECT DATABASE()"), [(OTHER_DATABASE,)])
    await connection.select_db(DATABASE)
    async with aiomysql.create_pool(minsize=1, maxsize=20, **options()) as pool:
        await asyncio.gather(*(task(pool, check, number, pinned=False) for number in range(20)))
    # This pool never resets a connection, so each stays pinned; no more of them than Sidepool has connections to give.
    async with aiomysql.create_pool(minsize=1, maxsize=4, **options()) as pool:
        await asyncio.gather(*(task(pool, check, number, pinned=True) for number in range(20)))
    # Three of every five turns were committed.
    check.equal("committed", await rows(connection, f"SELECT COUNT(*) FROM {TABLE}"), [(2 + 2 * 20 * 3,)])
    await rows(connection, f"DROP TABLE {TABLE}")
    connection.close()
    check.finish()


asyncio.run(main())
