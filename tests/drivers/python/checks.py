"""What every Python driver program shares: where to connect, counting checks, and the DB-API exercise itself."""

import datetime
import decimal
import hashlib
import os
import sys
import tempfile

HOST = os.environ["SP_HOST"]
PORT = int(os.environ["SP_PORT"])
USER = os.environ["SP_USER"]
PASSWORD = os.environ["SP_PASSWORD"]
DATABASE = os.environ["SP_DATABASE"]
OTHER_DATABASE = DATABASE + "_other"
TLS = os.environ.get("SP_TLS", "") == "1"

MB = 1024 * 1024
LARGE = 20 * MB

# One row of many types; the second half are the values every driver must turn it into.
TYPES = (
    "SELECT 1, -9223372036854775808, 18446744073709551615, CAST('12345.678901' AS DECIMAL(20,6)), 1.5e0,"
    " CAST(x'ff00fe' AS BINARY(3)), NULL, 'h\u00e9llo', '\U0001f600\u65e5\u672c', '',"
    " CAST('2024-02-29' AS DATE), CAST('2024-02-29 12:34:56.123456' AS DATETIME(6)), CAST('-12:34:56' AS TIME)"
)
TYPES_EXPECTED = (
    1,
    -9223372036854775808,
    18446744073709551615,
    decimal.Decimal("12345.678901"),
    1.5,
    b"\xff\x00\xfe",
    None,
    "h\u00e9llo",
    "\U0001f600\u65e5\u672c",
    "",
    datetime.date(2024, 2, 29),
    datetime.datetime(2024, 2, 29, 12, 34, 56, 123456),
    -datetime.timedelta(hours=12, minutes=34, seconds=56),
)


class Checks:
    """Counts what was checked; the first thing wrong ends the program."""

    def __init__(self, driver):
        self.driver = driver
        self.done = 0

    def equal(self, what, got, expected):
        if got != expected:
            self.fail(what, f"expected {short(expected)}, got {short(got)}")
        self.done += 1

    def true(self, what, got, detail=""):
        if not got:
            self.fail(what, detail or short(got))
        self.done += 1

    def fail(self, what, detail):
        print(f"FAILED {self.driver}: {what}: {detail}", file=sys.stderr)
        sys.exit(1)

    def finish(self):
        print(f"ok {self.driver}: {self.done} checks")


def short(value):
    text = repr(value)
    return text if len(text) < 300 else f"{text[:300]}… ({len(text)} characters)"


def large_value():
    """20 MB in which a lost, doubled or swapped piece changes the digest."""
    block = b"".join(hashlib.sha256(str(i).encode()).digest() for i in range(1024))
    return (block * (LARGE // len(block) + 1))[:LARGE]


def infile(rows):
    """A temporary file of tab-separated rows for LOAD DATA LOCAL INFILE."""
    handle = tempfile.NamedTemporaryFile("w", suffix=".tsv", delete=False, encoding="utf-8")
    with handle:
        for row in rows:
            handle.write("\t".join(map(str, row)) + "\n")
    return handle.name


class DbApi:
    """The exercise over PEP 249. `connect(**options)` opens a connection with the database selected and TLS as asked for;
    options: multi (several statements in one text), local_infile."""

    def __init__(self, driver, connect, error):
        self.check = Checks(driver)
        self.connect = connect
        self.error = error
        self.table = "t_" + driver.replace("-", "_").replace("+", "_")
        self.connection = connect(multi=True, local_infile=True)

    def rows(self, sql, args=None, connection=None):
        cursor = (connection or self.connection).cursor()
        if args is None:
            cursor.execute(sql)
        else:
            cursor.execute(sql, args)
        rows = [tuple(row) for row in cursor.fetchall()] if cursor.description else []
        cursor.close()
        return rows

    def one(self, sql, args=None, connection=None):
        rows = self.rows(sql, args, connection)
        self.check.equal(f"one row from {sql[:60]}", len(rows), 1)
        return rows[0][0] if len(rows[0]) == 1 else rows[0]

    def run(self):
        self.rows(f"DROP TABLE IF EXISTS {self.table}")
        self.rows(
            f"CREATE TABLE {self.table} (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE, short VARCHAR(5),"
            " big LONGBLOB) CHARACTER SET utf8mb4"
        )
        self.connection.commit()
        for part in (
            self.types,
            self.insert,
            self.transaction,
            self.duplicate,
            self.warnings,
            self.settings,
            self.session_things,
            self.local_infile,
            self.large,
            self.change_database,
        ):
            part()

    def finish(self):
        self.rows(f"DROP TABLE {self.table}")
        self.connection.close()
        self.check.finish()

    def types(self):
        row = self.one(TYPES)
        for index, expected in enumerate(TYPES_EXPECTED):
            self.check.equal(f"type of column {index}", row[index], expected)
        self.check.equal("parameters", self.one("SELECT %s, %s", ("it's \U0001f600 \\", None)), ("it's \U0001f600 \\", None))

    def insert(self):
        cursor = self.connection.cursor()
        cursor.execute(f"INSERT INTO {self.table} (name) VALUES ('a'), ('b'), ('c')")
        self.check.equal("affected rows", cursor.rowcount, 3)
        first = cursor.lastrowid
        self.check.true("last insert id", first >= 1, str(first))
        cursor.close()
        self.check.equal("LAST_INSERT_ID()", self.one("SELECT LAST_INSERT_ID()"), first)
        self.connection.commit()
        self.check.equal("ids", self.rows(f"SELECT id FROM {self.table} ORDER BY id"), [(first,), (first + 1,), (first + 2,)])

    def count(self):
        return self.one(f"SELECT COUNT(*) FROM {self.table}")

    def transaction(self):
        before = self.count()
        self.rows(f"INSERT INTO {self.table} (name) VALUES ('rolled back')")
        self.check.equal("inside a transaction", self.count(), before + 1)
        self.connection.rollback()
        self.check.equal("after rollback", self.count(), before)
        self.rows(f"INSERT INTO {self.table} (name) VALUES ('committed')")
        self.connection.commit()
        self.check.equal("after commit", self.count(), before + 1)

    def duplicate(self):
        try:
            self.rows(f"INSERT INTO {self.table} (name) VALUES ('a')")
        except self.error as error:
            code = error.args[0] if isinstance(error.args[0], int) else getattr(error, "errno", None)
            self.check.equal("duplicate key", code, 1062)
        else:
            self.check.fail("duplicate key", "no error")
        self.check.equal("usable after an error", self.one("SELECT 7"), 7)
        self.connection.rollback()

    def warnings(self):
        self.rows("SET sql_mode = ''")
        cursor = self.connection.cursor()
        cursor.execute(f"INSERT INTO {self.table} (name, short) VALUES ('w', 'abcdefghij')")
        cursor.close()
        warnings = self.rows("SHOW WARNINGS")
        self.check.equal("warnings", [(row[0], row[1]) for row in warnings], [("Warning", 1265)])
        self.check.equal("truncated", self.one(f"SELECT short FROM {self.table} WHERE name = 'w'"), "abcde")
        self.connection.rollback()

    def settings(self):
        self.rows("SET time_zone = '+03:00'")
        self.rows("SET SESSION sql_mode = 'ANSI_QUOTES,PIPES_AS_CONCAT'")
        self.check.equal("@@time_zone", self.one("SELECT @@time_zone"), "+03:00")
        self.check.equal("time zone", self.one("SELECT FROM_UNIXTIME(0)"), datetime.datetime(1970, 1, 1, 3))
        mode = self.one("SELECT @@sql_mode")
        self.check.true("@@sql_mode", {"ANSI_QUOTES", "PIPES_AS_CONCAT"} <= set(mode.split(",")), mode)
        self.check.equal("sql_mode", self.one(f"SELECT \"name\" || 'x' FROM \"{self.table}\" WHERE name = 'a'"), "ax")
        self.connection.commit()
        self.check.equal("settings outlive a transaction", self.one("SELECT @@time_zone"), "+03:00")
        self.rows("SET sql_mode = 'STRICT_TRANS_TABLES'")

    def session_things(self):
        self.rows("SET @a = 5, @b = 'x'")
        self.connection.commit()
        self.check.equal("user variables", self.one("SELECT @a, @b"), (5, "x"))
        self.rows("CREATE TEMPORARY TABLE tmp_x (a INT)")
        self.rows("INSERT INTO tmp_x VALUES (1), (2)")
        self.connection.commit()
        self.check.equal("temporary table", self.one("SELECT SUM(a) FROM tmp_x"), 3)
        self.rows("DROP TEMPORARY TABLE tmp_x")
        self.check.equal("GET_LOCK", self.one(f"SELECT GET_LOCK('{self.table}', 5)"), 1)
        self.connection.commit()
        self.check.equal("IS_USED_LOCK", self.one(f"SELECT IS_USED_LOCK('{self.table}') = CONNECTION_ID()"), 1)
        self.check.equal("RELEASE_LOCK", self.one(f"SELECT RELEASE_LOCK('{self.table}')"), 1)
        self.connection.commit()

    def local_infile(self):
        path = infile((f"row {i}", "abc") for i in range(5000))
        try:
            cursor = self.connection.cursor()
            cursor.execute(f"LOAD DATA LOCAL INFILE '{path}' INTO TABLE {self.table} (name, short)")
            self.check.equal("rows loaded", cursor.rowcount, 5000)
            cursor.close()
            self.check.equal("loaded", self.one(f"SELECT COUNT(*) FROM {self.table} WHERE short = 'abc'"), 5000)
            self.connection.rollback()
        finally:
            os.unlink(path)

    def large(self):
        if self.one("SELECT @@max_allowed_packet") < LARGE + MB:
            return
        value = large_value()
        # As a literal: every driver can send it, and it is one command of more than two packets.
        self.rows(f"INSERT INTO {self.table} (name, big) VALUES ('large', x'{value[: LARGE // 2].hex()}')")
        self.rows(f"UPDATE {self.table} SET big = CONCAT(big, big) WHERE name = 'large'")
        got = bytes(self.one(f"SELECT big FROM {self.table} WHERE name = 'large'"))
        self.check.true("20 MB there and back", got == value[: LARGE // 2] * 2, f"{len(got)} bytes, not the same")
        got = self.one("SELECT REPEAT('ab', %s)" % (LARGE // 2))
        self.check.true("20 MB of text", got == "ab" * (LARGE // 2), f"{len(got)} characters, not the same")
        self.connection.rollback()
        self.check.equal("usable after 20 MB", self.one("SELECT 8"), 8)

    def change_database(self):
        self.rows(f"USE {OTHER_DATABASE}")
        self.check.equal("USE", self.one("SELECT DATABASE()"), OTHER_DATABASE)
        self.connection.commit()
        self.rows("CREATE TABLE IF NOT EXISTS elsewhere (a INT)")
        self.check.equal("unqualified name", self.one("SELECT COUNT(*) FROM elsewhere"), 0)
        self.connection.commit()
        self.rows(f"USE {DATABASE}")
        self.check.equal("USE back", self.one("SELECT DATABASE()"), DATABASE)
