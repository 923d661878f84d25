// MariaDB Connector/J: client-side and server-side prepared statements, batches, fetch size, validation.
import java.io.ByteArrayInputStream;
import java.io.IOException;
import java.math.BigDecimal;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;

public class ConnectorJ {
    static final String TABLE = "t_connectorj";
    static final int LARGE = 20 * 1024 * 1024;
    static final String TYPES =
        "SELECT 1, CAST(-9223372036854775808 AS SIGNED), 18446744073709551615, CAST('12345.678901' AS DECIMAL(20,6)), 1.5e0,"
            + " CAST(x'ff00fe' AS BINARY(3)), NULL, 'h\u00e9llo', '\ud83d\ude00\u65e5\u672c', '', CAST('2024-02-29' AS DATE),"
            + " CAST('2024-02-29 12:34:56.123456' AS DATETIME(6)), CAST('-12:34:56' AS TIME)";
    static int checks;

    static void equal(String what, Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            System.err.printf("FAILED connector-j: %s: expected %s, got %s%n", what, shown(expected), shown(got));
            System.exit(1);
        }
        checks++;
    }

    static String shown(Object value) {
        String text = value instanceof byte[] ? Arrays.toString((byte[]) value) : String.valueOf(value);
        return text.length() < 300 ? text : text.substring(0, 300) + "…";
    }

    static String setting(String name) {
        return System.getenv("SP_" + name);
    }

    static Connection connect(String options) throws SQLException {
        boolean tls = "1".equals(System.getenv("SP_TLS"));
        // Both spellings: the driver's options changed their names with version 3.
        String url =
            "jdbc:mariadb://" + setting("HOST") + ":" + setting("PORT") + "/" + setting("DATABASE")
                + "?allowLocalInfile=true&allowMultiQueries=true&allowPublicKeyRetrieval=true&"
                + (tls ? "useSsl=true&trustServerCertificate=true&sslMode=trust" : "useSsl=false&sslMode=disable") + options;
        return DriverManager.getConnection(url, setting("USER"), setting("PASSWORD"));
    }

    interface Sql {
        void run() throws SQLException;
    }

    static int errorOf(Sql sql) {
        try {
            sql.run();
            return 0;
        } catch (SQLException e) {
            return e.getErrorCode();
        }
    }

    static String one(Connection c, String sql, Object... arguments) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < arguments.length; i++) {
                s.setObject(i + 1, arguments[i]);
            }
            try (ResultSet rows = s.executeQuery()) {
                equal("a row from " + sql, rows.next(), true);
                return rows.getString(1);
            }
        }
    }

    static void types(Connection c, String how) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(TYPES); ResultSet r = s.executeQuery()) {
            r.next();
            equal("int, " + how, r.getInt(1), 1);
            equal("smallest bigint, " + how, r.getLong(2), Long.MIN_VALUE);
            equal("largest unsigned, " + how, r.getBigDecimal(3), new BigDecimal("18446744073709551615"));
            equal("decimal, " + how, r.getBigDecimal(4), new BigDecimal("12345.678901"));
            equal("double, " + how, r.getDouble(5), 1.5);
            equal("binary, " + how, r.getBytes(6), new byte[] {(byte) 0xff, 0, (byte) 0xfe});
            equal("NULL, " + how, r.getString(7), null);
            equal("unicode, " + how, r.getString(8), "h\u00e9llo");
            equal("emoji, " + how, r.getString(9), "\ud83d\ude00\u65e5\u672c");
            equal("empty, " + how, r.getString(10), "");
            equal("date, " + how, r.getDate(11).toString(), "2024-02-29");
            equal("datetime, " + how, r.getTimestamp(12).toString(), "2024-02-29 12:34:56.123456");
        }
        for (int i = 0; i < 3; i++) {
            equal("parameters, " + how, one(c, "SELECT CONCAT(?, ?)", "it's \ud83d\ude00 \\", i), "it's \ud83d\ude00 \\" + i);
        }
    }

    static void changes(Connection c, String how) throws SQLException {
        try (Statement s = c.createStatement()) {
            equal("affected rows, " + how,
                s.executeUpdate("INSERT INTO " + TABLE + " (name) VALUES ('a'), ('b'), ('c')", Statement.RETURN_GENERATED_KEYS), 3);
            try (ResultSet keys = s.getGeneratedKeys()) {
                keys.next();
                equal("generated key, " + how, keys.getString(1), one(c, "SELECT LAST_INSERT_ID()"));
            }
        }
        try (PreparedStatement s = c.prepareStatement("INSERT INTO " + TABLE + " (name, short) VALUES (?, ?)")) {
            for (int i = 0; i < 50; i++) {
                s.setString(1, "batch " + i);
                s.setString(2, "x");
                s.addBatch();
            }
            equal("batch, " + how, s.executeBatch().length, 50);
        }
        c.setAutoCommit(false);
        update(c, "INSERT INTO " + TABLE + " (name) VALUES ('kept')");
        Savepoint point = c.setSavepoint("p");
        update(c, "INSERT INTO " + TABLE + " (name) VALUES ('not kept')");
        c.rollback(point);
        c.commit();
        update(c, "INSERT INTO " + TABLE + " (name) VALUES ('not kept')");
        c.rollback();
        c.setAutoCommit(true);
        equal("after transactions, " + how, one(c, "SELECT COUNT(*) FROM " + TABLE), "54");
        equal("duplicate key, " + how, errorOf(() -> update(c, "INSERT INTO " + TABLE + " (name) VALUES (?)", "a")), 1062);
        equal("usable after an error, " + how, one(c, "SELECT 7"), "7");
        try (Statement s = c.createStatement()) {
            s.setFetchSize(10);
            List<Integer> ids = new ArrayList<>();
            try (ResultSet rows = s.executeQuery("SELECT name FROM " + TABLE)) {
                while (rows.next()) {
                    ids.add(1);
                }
            }
            equal("rows in pieces, " + how, ids.size(), 54);
        }
    }

    static int update(Connection c, String sql, Object... arguments) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            for (int i = 0; i < arguments.length; i++) {
                s.setObject(i + 1, arguments[i]);
            }
            return s.executeUpdate();
        }
    }

    static void session(Connection c, String how) throws SQLException {
        update(c, "SET sql_mode = ''");
        try (Statement s = c.createStatement()) {
            s.executeUpdate("INSERT INTO " + TABLE + " (name, short) VALUES ('w', 'abcdefghij')");
            equal("warning, " + how, s.getWarnings().getErrorCode(), 1265);
        }
        try (Statement s = c.createStatement()) {
            s.executeUpdate("INSERT INTO " + TABLE + " (name, short) VALUES ('w2', 'abcdefghij')");
            try (ResultSet rows = s.executeQuery("SHOW WARNINGS")) {
                rows.next();
                equal("SHOW WARNINGS, " + how, rows.getInt(2), 1265);
            }
            s.execute("SET time_zone = '+03:00', sql_mode = 'ANSI_QUOTES'");
            s.execute("SET @a = 5");
        }
        equal("time zone, " + how, one(c, "SELECT CAST(FROM_UNIXTIME(0) AS CHAR)"), "1970-01-01 03:00:00");
        equal("sql_mode, " + how, one(c, "SELECT \"name\" FROM \"" + TABLE + "\" WHERE id = 1"), "a");
        equal("user variable, " + how, one(c, "SELECT @a"), "5");
        c.setTransactionIsolation(Connection.TRANSACTION_SERIALIZABLE);
        equal("isolation level, " + how, c.getTransactionIsolation(), Connection.TRANSACTION_SERIALIZABLE);
        c.setReadOnly(true);
        c.setReadOnly(false);
        c.setCatalog(setting("DATABASE") + "_other");
        equal("setCatalog, " + how, one(c, "SELECT DATABASE()"), setting("DATABASE") + "_other");
        c.setCatalog(setting("DATABASE"));
        equal("isValid, " + how, c.isValid(5), true);
        try (Statement s = c.createStatement()) {
            // Connector/J turns this into a statement of its own around the query.
            s.setQueryTimeout(5);
            try (ResultSet rows = s.executeQuery("SELECT 6")) {
                rows.next();
                equal("with a timeout, " + how, rows.getInt(1), 6);
            }
        }
        try (Statement s = c.createStatement()) {
            List<String> results = new ArrayList<>();
            boolean rows = s.execute("SELECT 1; SET @m = 2; SELECT @m");
            do {
                if (rows) {
                    ResultSet r = s.getResultSet();
                    r.next();
                    results.add(r.getString(1));
                }
                rows = s.getMoreResults();
            } while (rows || s.getUpdateCount() != -1);
            equal("multi-statements, " + how, results, List.of("1", "2"));
        }
    }

    static void large(Connection c, String how) throws SQLException, IOException {
        if (Long.parseLong(one(c, "SELECT @@max_allowed_packet")) > 2 * LARGE + 1024 * 1024) {
            byte[] value = new byte[LARGE];
            new java.util.Random(1).nextBytes(value);
            try (PreparedStatement s = c.prepareStatement("INSERT INTO " + TABLE + " (name, big) VALUES ('large', ?)")) {
                s.setBinaryStream(1, new ByteArrayInputStream(value), value.length);
                s.executeUpdate();
            }
            try (PreparedStatement s = c.prepareStatement("SELECT big FROM " + TABLE + " WHERE name = 'large'"); ResultSet r = s.executeQuery()) {
                r.next();
                equal("20 MB there and back, " + how, Arrays.equals(r.getBytes(1), value), true);
            }
        }
        Path file = Files.createTempFile("sidepool-", ".tsv");
        StringBuilder rows = new StringBuilder();
        for (int i = 0; i < 5000; i++) {
            rows.append("row ").append(i).append("\tabc\n");
        }
        Files.write(file, rows.toString().getBytes(StandardCharsets.UTF_8));
        try (Statement s = c.createStatement()) {
            equal("rows loaded, " + how,
                s.executeUpdate("LOAD DATA LOCAL INFILE '" + file + "' INTO TABLE " + TABLE + " (name, short)"), 5000);
        }
        Files.delete(file);
    }

    static void exercise(String how, String options) throws SQLException, IOException {
        try (Connection c = connect(options)) {
            update(c, "DROP TABLE IF EXISTS " + TABLE);
            update(c, "CREATE TABLE " + TABLE + " (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE, short VARCHAR(5),"
                + " big LONGBLOB) CHARACTER SET utf8mb4");
            types(c, how);
            changes(c, how);
            session(c, how);
            large(c, how);
            update(c, "DROP TABLE " + TABLE);
        }
    }

    public static void main(String[] arguments) throws Exception {
        exercise("client-side", "");
        exercise("server-side", "&useServerPrepStmts=true");
        System.out.println("ok connector-j: " + checks + " checks");
    }
}
