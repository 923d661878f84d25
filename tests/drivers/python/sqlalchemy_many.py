"""Many clients of one application, each with its own settings and autocommit off, over few backend connections.

Every client has its own engine and its own mix of character set, collation, time zone, sql_mode and isolation level.
In every transaction it checks that it sees exactly those settings, and its own rows. SP_CLIENTS (200) and SP_SECONDS (15).
"""

import functools
import os
import random
import ssl
import sys
import threading
import time
from collections import Counter

from checks import DATABASE, HOST, PASSWORD, PORT, TLS, USER
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import URL

CLIENTS = int(os.environ.get("SP_CLIENTS", "200"))
LASTING = float(os.environ.get("SP_SECONDS", "15"))

# Character set, its collations, and a word it can hold.
CHARSETS = [
    ("utf8mb4", ["utf8mb4_general_ci", "utf8mb4_bin", "utf8mb4_unicode_ci", "utf8mb4_unicode_520_ci"], "日本 😀 é"),
    ("latin1", ["latin1_swedish_ci", "latin1_bin", "latin1_german1_ci"], "déjà"),
    ("utf8mb3", ["utf8mb3_general_ci", "utf8mb3_bin"], "日本 é"),
]
MODES = ["", "ANSI_QUOTES", "STRICT_TRANS_TABLES", "NO_BACKSLASH_ESCAPES,STRICT_ALL_TABLES", "PIPES_AS_CONCAT,NO_ZERO_DATE"]
LEVELS = ["READ-UNCOMMITTED", "READ-COMMITTED", "REPEATABLE-READ", "SERIALIZABLE"]


class Client:
    def __init__(self, number, level_variable):
        dice = random.Random(number)
        self.number = number
        self.charset, collations, self.word = dice.choice(CHARSETS)
        self.collation = dice.choice(collations)
        self.zone = f"{dice.choice('+-')}{dice.randrange(1, 12):02}:{dice.choice(('00', '30'))}"
        self.mode = dice.choice(MODES)
        self.level = dice.choice(LEVELS)
        self.level_variable = level_variable
        self.counts = Counter()
        self.dice = dice
        self.expected = (self.zone, set(self.mode.split(",")), self.level, self.charset, self.collation, DATABASE)
        self.engine = create_engine(
            URL.create("mysql+pymysql", USER, PASSWORD, HOST, PORT, DATABASE, {"charset": driver_charset(self.charset)}),
            connect_args=tls_arguments(),
            pool_size=1,
            max_overflow=0,
            pool_pre_ping=number % 4 == 0,
        )
        event.listen(self.engine, "connect", self.settle)

    def settle(self, connection, _record):
        self.counts["connections"] += 1
        with connection.cursor() as cursor:
            cursor.execute(f"SET NAMES {self.charset} COLLATE {self.collation}")
            cursor.execute("SET time_zone = %s", (self.zone,))
            cursor.execute("SET SESSION sql_mode = %s", (self.mode,))
            cursor.execute(f"SET SESSION TRANSACTION ISOLATION LEVEL {self.level.replace('-', ' ')}")
            cursor.execute("SET autocommit = 0")
        connection.commit()

    def run(self, until, problems):
        try:
            # One transaction at least: on a slow machine connecting alone may take the time.
            while not problems:
                self.transaction()
                if time.monotonic() >= until:
                    break
        except Mismatch as error:
            problems.append(f"client {self.number}: {error}")
        except Exception as error:  # whatever it is, it is the result
            problems.append(f"client {self.number}: {type(error).__name__}: {str(error)[:500]}")
        finally:
            self.engine.dispose()

    def transaction(self):
        name = f"{self.number} {self.word}"
        with self.engine.connect() as connection:
            before = self.balance(connection, name)
            self.settings(connection)
            keep = self.dice.random() < 0.7
            connection.execute(text("UPDATE sa_many SET n = n + 1 WHERE client = :c"), {"c": self.number})
            after = self.balance(connection, name)
            same("own change", after, before + 1)
            same("autocommit", connection.scalar(text("SELECT @@autocommit")), 0)
            (connection.commit if keep else connection.rollback)()
            self.counts["committed" if keep else "rolled back"] += 1
        if self.dice.random() < 0.02:
            self.engine.dispose()  # so that connecting happens under load too

    def balance(self, connection, name):
        row = connection.execute(text("SELECT n, name FROM sa_many WHERE client = :c"), {"c": self.number}).one()
        same("own row", row.name, name)
        committed = self.counts["committed"]
        if row.n not in (committed, committed + 1):
            raise Mismatch(f"own data: {row.n} where {committed} were committed")
        return row.n

    def settings(self, connection):
        row = connection.execute(
            text(
                f"SELECT @@time_zone, @@sql_mode, @@{self.level_variable}, @@character_set_client, @@collation_connection,"
                " DATABASE()"
            )
        ).one()
        seen = (row[0], set(row[1].split(",")), row[2], plain(row[3]), plain(row[4]), row[5])
        same("own settings", seen, self.expected)


class Mismatch(Exception):
    pass


def same(what, got, expected):
    if got != expected:
        raise Mismatch(f"{what}: expected {expected!r}, got {got!r}")


def plain(name):
    """Older servers call utf8mb3 utf8."""
    return name.replace("utf8_", "utf8mb3_") if name.startswith("utf8_") else {"utf8": "utf8mb3"}.get(name, name)


def driver_charset(charset):
    return {"utf8mb3": "utf8"}.get(charset, charset)


@functools.cache
def tls_arguments():
    if not TLS:
        return {"ssl_disabled": True}
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return {"ssl": context}


def prepare():
    """The table, and what this server calls the isolation level. Returns the variable's name."""
    url = URL.create("mysql+pymysql", USER, PASSWORD, HOST, PORT, DATABASE, {"charset": "utf8mb4"})
    engine = create_engine(url, connect_args=tls_arguments())
    with engine.connect() as connection:
        names = {row[0] for row in connection.execute(text("SHOW VARIABLES LIKE '%isolation'"))}
        connection.execute(text("DROP TABLE IF EXISTS sa_many"))
        connection.execute(
            text("CREATE TABLE sa_many (client INT PRIMARY KEY, n INT NOT NULL, name VARCHAR(40)) CHARACTER SET utf8mb4")
        )
    engine.dispose()
    return "transaction_isolation" if "transaction_isolation" in names else "tx_isolation"


def insert_rows(clients):
    url = URL.create("mysql+pymysql", USER, PASSWORD, HOST, PORT, DATABASE, {"charset": "utf8mb4"})
    engine = create_engine(url, connect_args=tls_arguments())
    with engine.begin() as connection:
        connection.execute(
            text("INSERT INTO sa_many VALUES (:c, 0, :name)"),
            [{"c": client.number, "name": f"{client.number} {client.word}"} for client in clients],
        )
    engine.dispose()


def main():
    variable = prepare()
    clients = [Client(number, variable) for number in range(CLIENTS)]
    insert_rows(clients)
    problems = []
    until = time.monotonic() + LASTING
    threads = [threading.Thread(target=client.run, args=(until, problems)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    total = sum((client.counts for client in clients), Counter())
    idle = sum(1 for client in clients if not client.counts["committed"] + client.counts["rolled back"])
    print(f"sqlalchemy_many: {CLIENTS} clients, " + ", ".join(f"{n} {what}" for what, n in sorted(total.items())))
    if idle:
        problems.append(f"{idle} clients finished no transaction")
    for problem in problems[:20]:
        print(f"FAILED sqlalchemy_many: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    print(f"ok sqlalchemy_many: {total['committed'] + total['rolled back']} checks")


main()
