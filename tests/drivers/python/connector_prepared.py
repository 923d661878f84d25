"""mysql-connector-python's prepared cursors, in both of its implementations: threads that each keep statements."""

import os
import random
import socket
import sys
import threading
from decimal import Decimal

import mysql.connector
from checks import DATABASE, HOST, OTHER_DATABASE, PASSWORD, PORT, TLS, USER, Checks

CLIENTS = int(os.environ.get("SP_CLIENTS", "20"))
ROUNDS = int(os.environ.get("SP_ROUNDS", "10"))
TABLE = "t_connector_prepared"
NAME = "connector-python-prepared"


def connect(pure, tls=TLS):
    connection = mysql.connector.connect(
        host=HOST, port=PORT, user=USER, password=PASSWORD, database=DATABASE, charset="utf8mb4", use_pure=pure, ssl_disabled=not tls
    )
    if pure:
        # Closing a statement has no answer; without this whatever follows it waits 40 ms for an acknowledgement.
        connection._socket.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Client:
    def __init__(self, number, pure):
        self.number = number
        self.pure = pure
        self.checks = 0
        self.dice = random.Random(number)

    def equal(self, what, got, expected):
        if got != expected:
            raise AssertionError(f"{what}: expected {expected!r:.300}, got {got!r:.300}")
        self.checks += 1

    def rows(self, cursor, sql, arguments=()):
        cursor.execute(sql, arguments)
        return [tuple(row) for row in cursor.fetchall()]

    def run(self, together):
        self.connection = connect(self.pure)
        # A prepared cursor keeps its statement as long as it is given the same text.
        insert, select, values, place = (self.connection.cursor(prepared=True) for _ in range(4))
        place_sql = f"SELECT place, DATABASE() FROM {TABLE}_place WHERE %s = 1"
        self.equal("place", self.rows(place, place_sql, (1,)), [("here", DATABASE)])
        self.connection.commit()
        together.wait(120)
        for number in range(ROUNDS):
            self.values(values)
            self.insert(insert, select, number)
            self.connection.commit()
        self.roll_back(insert, select)
        other = self.connection.cursor()
        other.execute(f"USE {OTHER_DATABASE}")
        self.equal("a statement of before", self.rows(place, place_sql, (1,)), [("here", DATABASE)])
        other.execute(f"USE {DATABASE}")
        self.connection.commit()
        for cursor in (insert, select, values, place, other):
            cursor.close()
        self.connection.close()

    def values(self, cursor):
        number = self.dice.randrange(-(2**62), 2**62)
        word = "é😀\\'" * self.dice.randrange(60)
        binary = self.dice.randbytes(self.dice.randrange(3000))
        sql = "SELECT %s + 0, CONCAT(%s, ''), CAST(%s AS BINARY), %s IS NULL, CAST(%s AS DECIMAL(20, 4))"
        for nothing in (None, 1):
            (row,) = self.rows(cursor, sql, (number, word, binary, nothing, Decimal("-12345.6789")))
            self.equal("values", (row[0], row[1], bytes(row[2]), row[3], row[4]),
                       (number, word, binary, int(nothing is None), Decimal("-12345.6789")))  # fmt: skip

    def insert(self, insert, select, number):
        data = self.dice.randbytes(20_000)
        sql = f"INSERT INTO {TABLE} (owner, name, data) VALUES (%s, %s, %s)"
        insert.execute(sql, (self.number, f"row {number} 😀", data))
        self.equal("affected rows", insert.rowcount, 1)
        row = self.rows(select, f"SELECT owner, name, data FROM {TABLE} WHERE id = %s", (insert.lastrowid,))
        self.equal("the row of that id", [(a, b, bytes(c)) for a, b, c in row], [(self.number, f"row {number} 😀", data)])

    def roll_back(self, insert, select):
        self.insert(insert, select, 1000)
        mine = f"SELECT COUNT(*) FROM {TABLE} WHERE owner = %s"
        self.equal("inside", self.rows(select, mine, (self.number,)), [(ROUNDS + 1,)])
        self.connection.rollback()
        self.equal("after the rollback", self.rows(select, mine, (self.number,)), [(ROUNDS,)])
        try:
            insert.execute(f"INSERT INTO {TABLE} (id, owner) VALUES (%s, %s)", ("no number", 1))
        except mysql.connector.Error as error:
            self.equal("wrong value", error.errno, 1366)
        self.connection.rollback()


def prepare():
    connection = connect(True, tls=True) if not TLS else connect(True)  # see with_connector.py about the first login
    cursor = connection.cursor()
    cursor.execute(f"DROP TABLE IF EXISTS {TABLE}, {TABLE}_place")
    cursor.execute(
        f"CREATE TABLE {TABLE} (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT, name VARCHAR(40), data LONGBLOB, KEY (owner))"
        " CHARACTER SET utf8mb4"
    )
    cursor.execute(f"CREATE TABLE {TABLE}_place (place VARCHAR(10)) CHARACTER SET utf8mb4")
    cursor.execute(f"INSERT INTO {TABLE}_place VALUES ('here')")
    connection.commit()
    connection.close()


def main():
    check = Checks(NAME)
    prepare()
    # The C implementation sends what the pure one does not, such as long data in pieces.
    clients = [Client(number, pure=number % 2 == 0 or not mysql.connector.HAVE_CEXT) for number in range(CLIENTS)]
    together = threading.Barrier(CLIENTS)
    problems = []

    def work(client):
        try:
            client.run(together)
        except Exception as error:  # whatever it is, it is the result
            together.abort()
            problems.append(f"client {client.number}: {type(error).__name__}: {str(error)[:500]}")

    threads = [threading.Thread(target=work, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for problem in problems[:10]:
        print(f"FAILED {NAME}: {problem}", file=sys.stderr)
    if problems:
        sys.exit(1)
    check.done += sum(client.checks for client in clients)
    check.finish()


main()
