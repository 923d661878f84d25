// MariaDB Connector/J with server-side prepared statements: many connections that keep theirs, none of which may be pinned.
import java.io.ByteArrayInputStream;
import java.io.InputStream;
import java.io.StringReader;
import java.math.BigDecimal;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.ParameterMetaData;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.ResultSetMetaData;
import java.sql.SQLException;
import java.sql.Savepoint;
import java.sql.Statement;
import java.sql.Timestamp;
import java.sql.Types;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.Random;
import java.util.TreeSet;
import java.util.concurrent.BrokenBarrierException;
import java.util.concurrent.CyclicBarrier;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;
import java.util.concurrent.atomic.AtomicInteger;

public class ConnectorJPrepared {
    static final String TABLE = "t_connectorj_prepared";
    static final String ACCOUNTS = "t_connectorj_accounts";
    static final int CLIENTS = Integer.parseInt(System.getenv().getOrDefault("SP_CLIENTS", "20"));
    static final int ROUNDS = Integer.parseInt(System.getenv().getOrDefault("SP_ROUNDS", "4"));
    static final AtomicInteger checks = new AtomicInteger();
    static volatile boolean failed;

    static void equal(String what, Object got, Object expected) {
        if (!Objects.deepEquals(got, expected)) {
            throw new AssertionError(what + ": expected " + shown(expected) + ", got " + shown(got));
        }
        checks.incrementAndGet();
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
                + "?allowPublicKeyRetrieval=true&useServerPrepStmts=true&cachePrepStmts=true&prepStmtCacheSize=100&"
                + (tls ? "useSsl=true&trustServerCertificate=true&sslMode=trust" : "useSsl=false&sslMode=disable") + options;
        return DriverManager.getConnection(url, setting("USER"), setting("PASSWORD"));
    }

    interface Sql {
        void run() throws Exception;
    }

    static int errorOf(Sql sql) throws Exception {
        try {
            sql.run();
            return 0;
        } catch (SQLException e) {
            return e.getErrorCode();
        }
    }

    static int update(Connection c, String sql, Object... arguments) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            bind(s, arguments);
            return s.executeUpdate();
        }
    }

    static String one(Connection c, String sql, Object... arguments) throws SQLException {
        try (PreparedStatement s = c.prepareStatement(sql)) {
            bind(s, arguments);
            try (ResultSet rows = s.executeQuery()) {
                equal("a row from " + sql, rows.next(), true);
                return rows.getString(1);
            }
        }
    }

    static void bind(PreparedStatement s, Object... arguments) throws SQLException {
        for (int i = 0; i < arguments.length; i++) {
            s.setObject(i + 1, arguments[i]);
        }
    }

    // --- one connection ---------------------------------------------------------------------------------------------

    final int number;
    final Connection c;
    final String how;

    ConnectorJPrepared(int number, String how, Connection c) {
        this.number = number;
        this.how = how;
        this.c = c;
    }

    void run(CyclicBarrier together) throws Exception {
        try (PreparedStatement kept = c.prepareStatement("SELECT ? + 0, ?, CONCAT('x', ?)")) {
            changingTypes(kept);
            // Now every client has statements, so far more clients than backend connections have.
            meet(together);
            for (int round = 0; round < ROUNDS; round++) {
                changingTypes(kept);
                otherTypes();
                sharedText();
                changes(round);
                transactions(round);
                batches(round);
                meet(together);
            }
            session();
            longData();
            pieces();
            metadata();
            timeouts();
            errors(kept);
            changingTypes(kept);
        }
    }

    static void meet(CyclicBarrier together) throws Exception {
        if (failed) {
            throw new BrokenBarrierException();
        }
        together.await(60, TimeUnit.SECONDS);
    }

    /** One statement, executed with other types each time; types are only sent when they changed. */
    void changingTypes(PreparedStatement s) throws SQLException {
        Random random = new Random(number);
        for (int i = 0; i < 6; i++) {
            int n = random.nextInt(1_000_000);
            s.setInt(1, n);
            s.setString(2, "h\u00e9 \ud83d\ude00 " + n);
            s.setLong(3, -n);
            row(s, String.valueOf(n), "h\u00e9 \ud83d\ude00 " + n, "x" + -n);
            row(s, String.valueOf(n), "h\u00e9 \ud83d\ude00 " + n, "x" + -n); // the same types again
            s.setLong(1, Long.MIN_VALUE + n);
            row(s, String.valueOf(Long.MIN_VALUE + n), "h\u00e9 \ud83d\ude00 " + n, "x" + -n);
            s.setNull(1, Types.INTEGER);
            s.setBytes(2, new byte[] {'b', (byte) ('a' + i)});
            s.setNull(3, Types.VARCHAR);
            row(s, null, "b" + (char) ('a' + i), null);
            s.setShort(1, (short) (n % 1000));
            s.setString(2, "12345.678");
            s.setString(3, "\\'\"\n");
            row(s, String.valueOf(n % 1000), "12345.678", "x\\'\"\n");
            s.setBoolean(3, true);
            row(s, String.valueOf(n % 1000), "12345.678", "x1");
        }
    }

    /** Not with the others: a parameter of `SELECT ?` that was a decimal or a double once stays one for MySQL. */
    void otherTypes() throws SQLException {
        try (PreparedStatement s = c.prepareStatement("SELECT CAST(? AS CHAR), ? IS NULL, ?, ? + 0")) {
            for (int i = 10; i < 14; i++) {
                s.setTimestamp(1, Timestamp.valueOf("2024-02-29 12:34:" + i));
                s.setTimestamp(2, i % 2 == 0 ? null : Timestamp.valueOf("2024-02-29 12:34:56"));
                s.setBigDecimal(3, new BigDecimal("1234567890.12345" + i));
                s.setDouble(4, 0.25 + i);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    equal("double, " + how, r.getDouble(4), 0.25 + i);
                    equal("decimal, " + how, r.getBigDecimal(3).compareTo(new BigDecimal("1234567890.12345" + i)), 0);
                    equal("timestamp, " + how, r.getString(1).startsWith("2024-02-29 12:34:" + i), true);
                    equal("no timestamp, " + how, r.getInt(2), 1 - i % 2);
                }
            }
        }
    }

    /**
     * Every client prepares the same text and binds another type to it. MySQL's statements keep the type of a parameter: a statement
     * that somebody else executed with a number would answer 0 here.
     */
    void sharedText() throws SQLException {
        try (PreparedStatement s = c.prepareStatement("SELECT ?, COUNT(*) FROM t_connectorj_digits WHERE CONCAT(n, '') = ?")) {
            for (int i = 0; i < 5; i++) {
                if (number % 2 == 0) {
                    s.setInt(1, number);
                    s.setInt(2, number);
                } else {
                    s.setString(1, "word " + number);
                    s.setString(2, "0" + number);
                }
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    equal("one text, several types, " + how, r.getString(1), number % 2 == 0 ? String.valueOf(number) : "word " + number);
                    equal("comparison by type, " + how, r.getInt(2), number % 2 == 0 ? 1 : 0);
                }
            }
        }
    }

    void row(PreparedStatement s, String a, String b, String c) throws SQLException {
        try (ResultSet r = s.executeQuery()) {
            equal("a row, " + how, r.next(), true);
            equal("first of changing types, " + how, r.getString(1), a);
            equal("second of changing types, " + how, r.getString(2), b);
            equal("third of changing types, " + how, r.getString(3), c);
            equal("no more rows, " + how, r.next(), false);
        }
    }

    /** Generated keys, also when somebody else's statement ran on the backend connection in between. */
    void changes(int round) throws SQLException {
        String insert = "INSERT INTO " + TABLE + " (owner, name, round) VALUES (?, ?, ?)";
        List<Long> ids = new ArrayList<>();
        try (PreparedStatement s = c.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 5; i++) {
                bind(s, number, "single " + i, round);
                equal("one row, " + how, s.executeUpdate(), 1);
                try (ResultSet keys = s.getGeneratedKeys()) {
                    keys.next();
                    ids.add(keys.getLong(1));
                }
                equal("LAST_INSERT_ID(), " + how, Long.valueOf(one(c, "SELECT LAST_INSERT_ID()")), ids.get(i));
                equal("the row of that id, " + how, one(c, "SELECT CONCAT(owner, ' ', name) FROM " + TABLE + " WHERE id = ?", ids.get(i)),
                    number + " single " + i);
            }
        }
        equal("different ids, " + how, new TreeSet<>(ids).size(), 5);
        equal("own rows, " + how, one(c, "SELECT COUNT(*) FROM " + TABLE + " WHERE owner = ? AND round = ?", number, round), "5");
        equal("updated rows, " + how, update(c, "UPDATE " + TABLE + " SET name = CONCAT(name, ?) WHERE owner = ? AND round = ?", "!", number, round), 5);
        equal("deleted rows, " + how, update(c, "DELETE FROM " + TABLE + " WHERE id = ?", ids.get(0)), 1);
        equal("deleted rows, again, " + how, update(c, "DELETE FROM " + TABLE + " WHERE id = ?", ids.get(0)), 0);
    }

    void transactions(int round) throws SQLException {
        c.setAutoCommit(false);
        c.setTransactionIsolation(round % 2 == 0 ? Connection.TRANSACTION_READ_COMMITTED : Connection.TRANSACTION_REPEATABLE_READ);
        long before = Long.parseLong(one(c, "SELECT amount FROM " + ACCOUNTS + " WHERE id = ?", number));
        update(c, "UPDATE " + ACCOUNTS + " SET amount = amount + ? WHERE id = ?", 1, number);
        Savepoint point = c.setSavepoint("before_more");
        update(c, "UPDATE " + ACCOUNTS + " SET amount = amount + ? WHERE id = ?", 100, number);
        equal("inside, " + how, one(c, "SELECT amount FROM " + ACCOUNTS + " WHERE id = ?", number), String.valueOf(before + 101));
        c.rollback(point);
        equal("after the savepoint, " + how, one(c, "SELECT amount FROM " + ACCOUNTS + " WHERE id = ?", number), String.valueOf(before + 1));
        c.commit();
        update(c, "UPDATE " + ACCOUNTS + " SET amount = 0 WHERE id = ?", number);
        c.rollback();
        equal("after commit and rollback, " + how, one(c, "SELECT amount FROM " + ACCOUNTS + " WHERE id = ?", number), String.valueOf(before + 1));
        c.rollback();
        // A savepoint before anything else: with autocommit off it counts although there is no transaction yet.
        Savepoint first = c.setSavepoint("first");
        update(c, "UPDATE " + ACCOUNTS + " SET amount = 0 WHERE id = ?", number);
        c.rollback(first);
        c.commit();
        c.setAutoCommit(true);
        equal("after all of it, " + how, one(c, "SELECT amount FROM " + ACCOUNTS + " WHERE id = ?", number), String.valueOf(before + 1));
    }

    void batches(int round) throws SQLException {
        String insert = "INSERT INTO " + TABLE + " (owner, name, round, bits) VALUES (?, ?, ?, ?)";
        try (PreparedStatement s = c.prepareStatement(insert, Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 100; i++) {
                s.setInt(1, number);
                s.setString(2, i % 7 == 0 ? null : "batch " + i);
                s.setInt(3, 1000 + round);
                s.setBytes(4, i % 5 == 0 ? null : new byte[] {(byte) i, 0, (byte) 0xff});
                s.addBatch();
            }
            equal("batch, " + how, s.executeBatch().length, 100);
        }
        equal("rows of the batch, " + how,
            one(c, "SELECT CONCAT_WS(',', COUNT(*), COUNT(name), COUNT(bits), SUM(ORD(bits))) FROM " + TABLE + " WHERE owner = ? AND round = ?", number,
                1000 + round), "100,85,80," + batchSum());
        String duplicate = "INSERT INTO " + ACCOUNTS + " (id, amount) VALUES (?, 0)";
        try (PreparedStatement s = c.prepareStatement(duplicate)) {
            for (int id : new int[] {number, number}) {
                s.setInt(1, id);
                s.addBatch();
            }
            s.executeBatch();
            equal("a duplicate key in a batch was taken, " + how, true, false);
        } catch (BatchUpdateException e) {
            equal("duplicate key in a batch, " + how, e.getErrorCode(), 1062);
        }
        equal("batch cleared away, " + how, update(c, "DELETE FROM " + TABLE + " WHERE owner = ? AND round = ?", number, 1000 + round), 100);
    }

    static int batchSum() {
        int sum = 0;
        for (int i = 0; i < 100; i++) {
            sum += i % 5 == 0 ? 0 : i;
        }
        return sum;
    }

    /** Statements prepared before the session changed go on as they were prepared; those after it see the change. */
    void session() throws SQLException {
        String other = setting("DATABASE") + "_other";
        try (PreparedStatement here = c.prepareStatement("SELECT place FROM t_connectorj_place WHERE 1 = ?")) {
            here.setInt(1, 1);
            single(here, "here");
            c.setCatalog(other);
            single(here, "here");
            equal("database, " + how, one(c, "SELECT DATABASE()"), other);
            equal("prepared there, " + how, one(c, "SELECT place FROM t_connectorj_place WHERE 2 = ?", 2), "there");
            c.setCatalog(setting("DATABASE"));
            single(here, "here");
        }
        String zone = String.format("+%02d:00", number % 12 + 1);
        try (PreparedStatement now = c.prepareStatement("SELECT @@time_zone, CAST(FROM_UNIXTIME(?) AS CHAR)")) {
            now.setInt(1, 0);
            try (Statement s = c.createStatement()) {
                s.execute("SET time_zone = '" + zone + "'");
            }
            try (ResultSet r = now.executeQuery()) {
                r.next();
                equal("time zone, " + how, r.getString(1), zone);
                equal("time in that zone, " + how, r.getString(2).substring(0, 19), String.format("1970-01-01 %02d:00:00", number % 12 + 1));
            }
        }
        int level = number % 2 == 0 ? Connection.TRANSACTION_SERIALIZABLE : Connection.TRANSACTION_READ_UNCOMMITTED;
        c.setTransactionIsolation(level);
        equal("isolation level, " + how, c.getTransactionIsolation(), level);
        c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
        c.setReadOnly(true);
        equal("read only, " + how, one(c, "SELECT CONCAT(?, '')", "still answers"), "still answers");
        c.setReadOnly(false);
        equal("isValid, " + how, c.isValid(10), true);
    }

    void single(PreparedStatement s, String expected) throws SQLException {
        try (ResultSet r = s.executeQuery()) {
            r.next();
            equal("by a kept statement, " + how, r.getString(1), expected);
        }
    }

    /** Values given as streams are sent in pieces before the execution. */
    void longData() throws SQLException {
        byte[] value = new byte[300_000 + number];
        new Random(number).nextBytes(value);
        String letters = "\u00e9\ud83d\ude00x".repeat(5_000);
        try (PreparedStatement s = c.prepareStatement("INSERT INTO " + TABLE + " (owner, name, round, big, words) VALUES (?, ?, -1, ?, ?)")) {
            for (int i = 0; i < 2; i++) {
                s.setInt(1, number);
                s.setString(2, "stream " + i);
                s.setBinaryStream(3, new ByteArrayInputStream(value, i, value.length - i));
                s.setCharacterStream(4, new StringReader(letters));
                equal("a streamed row, " + how, s.executeUpdate(), 1);
            }
        }
        try (PreparedStatement s = c.prepareStatement("SELECT big, words FROM " + TABLE + " WHERE owner = ? AND round = -1 ORDER BY id")) {
            s.setInt(1, number);
            try (ResultSet r = s.executeQuery()) {
                for (int i = 0; i < 2; i++) {
                    equal("streamed row there, " + how, r.next(), true);
                    equal("streamed bytes, " + how, Arrays.equals(all(r.getBinaryStream(1)), Arrays.copyOfRange(value, i, value.length)), true);
                    equal("streamed letters, " + how, letters.equals(r.getString(2)), true);
                }
            }
        }
        update(c, "DELETE FROM " + TABLE + " WHERE owner = ? AND round = -1", number);
    }

    static byte[] all(InputStream stream) {
        try (stream) {
            return stream.readAllBytes();
        } catch (java.io.IOException e) {
            throw new AssertionError(e);
        }
    }

    /** Rows in pieces: the driver reads on only as rows are asked for, and may be told to stop in the middle. */
    void pieces() throws SQLException {
        try (PreparedStatement s = c.prepareStatement("SELECT a.n * 100 + b.n FROM t_connectorj_digits a, t_connectorj_digits b WHERE a.n >= ? ORDER BY 1")) {
            s.setFetchSize(50);
            s.setInt(1, 0);
            int expected = 0;
            try (ResultSet r = s.executeQuery()) {
                while (r.next()) {
                    equal("row in pieces, " + how, r.getInt(1), expected++);
                }
            }
            equal("rows in pieces, " + how, expected, 10_000);
            try (ResultSet r = s.executeQuery()) {
                r.next();
            }
            s.setMaxRows(7);
            int some = 0;
            try (ResultSet r = s.executeQuery()) {
                while (r.next()) {
                    some++;
                }
            }
            equal("at most so many rows, " + how, some, 7);
        }
    }

    void metadata() throws SQLException {
        try (PreparedStatement s = c.prepareStatement("SELECT id, name FROM " + TABLE + " WHERE owner = ? AND name = ?")) {
            ResultSetMetaData columns = s.getMetaData();
            equal("columns before the execution, " + how, columns.getColumnCount() + columns.getColumnName(2), "2name");
            ParameterMetaData parameters = s.getParameterMetaData();
            equal("parameters, " + how, parameters.getParameterCount(), 2);
        }
    }

    /** A limit that is not reached, one that is, and a statement given up from another thread. */
    void timeouts() throws Exception {
        try (PreparedStatement s = c.prepareStatement("SELECT ? + SLEEP(0)")) {
            s.setQueryTimeout(60);
            s.setInt(1, number);
            try (ResultSet r = s.executeQuery()) {
                r.next();
                equal("with a limit, " + how, r.getInt(1), number);
            }
        }
        if (number % 10 == 0) {
            try (PreparedStatement s = c.prepareStatement("SELECT SLEEP(?)")) {
                s.setQueryTimeout(1);
                s.setInt(1, 30);
                long began = System.nanoTime();
                try (ResultSet r = s.executeQuery()) {
                    // A killed SLEEP may also be an answer.
                    r.next();
                    equal("interrupted, " + how, r.getInt(1), 1);
                } catch (SQLException e) {
                    equal("interrupted", e.getErrorCode() > 0 || e instanceof java.sql.SQLTimeoutException, true);
                }
                equal("given up in time, " + how, System.nanoTime() - began < 25_000_000_000L, true);
            }
        }
        equal("usable after a limit, " + how, one(c, "SELECT ? + 0", number), String.valueOf(number));
    }

    void errors(PreparedStatement kept) throws Exception {
        equal("duplicate key, " + how, errorOf(() -> update(c, "INSERT INTO " + ACCOUNTS + " (id, amount) VALUES (?, 0)", number)), 1062);
        equal("unknown table, " + how, errorOf(() -> update(c, "DELETE FROM t_connectorj_gone WHERE a = ?", 1)), 1146);
        equal("syntax error, " + how, errorOf(() -> update(c, "DELET FROM t WHERE a = ?", 1)), 1064);
        equal("wrong value, " + how, errorOf(() -> update(c, "INSERT INTO " + ACCOUNTS + " (id, amount) VALUES (?, 0)", "no number")), 1366);
        kept.clearParameters();
        equal("usable after errors, " + how, one(c, "SELECT CONCAT(?, '')", "yes"), "yes");
    }

    // --- all of them ------------------------------------------------------------------------------------------------

    static void prepare() throws SQLException {
        try (Connection c = connect("")) {
            String other = setting("DATABASE") + "_other";
            for (String name : List.of(TABLE, ACCOUNTS, "t_connectorj_digits", "t_connectorj_place", other + ".t_connectorj_place")) {
                update(c, "DROP TABLE IF EXISTS " + name);
            }
            update(c, "CREATE TABLE " + TABLE + " (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT, name VARCHAR(40), round INT, bits VARBINARY(10),"
                + " big LONGBLOB, words LONGTEXT, KEY (owner, round)) CHARACTER SET utf8mb4");
            update(c, "CREATE TABLE " + ACCOUNTS + " (id INT PRIMARY KEY, amount BIGINT)");
            update(c, "CREATE TABLE t_connectorj_digits (n INT PRIMARY KEY)");
            update(c, "CREATE TABLE t_connectorj_place (place VARCHAR(10)) CHARACTER SET utf8mb4");
            update(c, "CREATE TABLE " + other + ".t_connectorj_place (place VARCHAR(10)) CHARACTER SET utf8mb4");
            update(c, "INSERT INTO t_connectorj_place VALUES ('here')");
            update(c, "INSERT INTO " + other + ".t_connectorj_place VALUES ('there')");
            try (PreparedStatement s = c.prepareStatement("INSERT INTO t_connectorj_digits VALUES (?)")) {
                for (int i = 0; i < 100; i++) {
                    s.setInt(1, i);
                    s.addBatch();
                }
                s.executeBatch();
            }
            try (PreparedStatement s = c.prepareStatement("INSERT INTO " + ACCOUNTS + " VALUES (?, 0)")) {
                for (int i = 0; i < CLIENTS; i++) {
                    s.setInt(1, i);
                    s.addBatch();
                }
                s.executeBatch();
            }
        }
    }

    static boolean waited(Throwable e) {
        return e instanceof BrokenBarrierException || e instanceof TimeoutException;
    }

    static void exercise(String how, String options) throws Exception {
        prepare();
        CyclicBarrier together = new CyclicBarrier(CLIENTS);
        ExecutorService threads = Executors.newFixedThreadPool(CLIENTS);
        List<Future<?>> running = new ArrayList<>();
        for (int i = 0; i < CLIENTS; i++) {
            int number = i;
            running.add(threads.submit(() -> {
                try (Connection c = connect(options)) {
                    new ConnectorJPrepared(number, how + ", client " + number, c).run(together);
                } catch (Throwable e) {
                    failed = true;
                    together.reset();
                    throw e;
                }
                return null;
            }));
        }
        threads.shutdown();
        List<Throwable> failures = new ArrayList<>();
        for (Future<?> one : running) {
            try {
                one.get();
            } catch (ExecutionException e) {
                failures.add(e.getCause());
            }
        }
        if (!failures.isEmpty()) {
            // Those that waited for the one that failed say nothing new.
            failures.sort((a, b) -> Boolean.compare(waited(a), waited(b)));
            System.err.println("FAILED connector-j-prepared, " + how + ": " + failures.get(0) + " (" + failures.size() + " clients failed)");
            for (Throwable e = failures.get(0); e != null; e = e.getCause()) {
                System.err.println(e);
                Arrays.stream(e.getStackTrace()).filter(at -> at.getClassName().startsWith("ConnectorJ")).forEach(at -> System.err.println("    at " + at));
            }
            System.exit(1);
        }
        try (Connection c = connect("")) {
            equal("sum of all accounts, " + how, one(c, "SELECT SUM(amount) FROM " + ACCOUNTS), String.valueOf(CLIENTS * ROUNDS));
            equal("rows left, " + how, one(c, "SELECT COUNT(*) FROM " + TABLE), String.valueOf(CLIENTS * ROUNDS * 4));
        }
    }

    public static void main(String[] arguments) throws Exception {
        exercise("one by one", "&useBatchMultiSend=false&useBulkStmts=false");
        exercise("in bulk", "&useBulkStmts=true");
        exercise("pipelined", "&useBatchMultiSend=true&useBulkStmts=false&usePipelineAuth=false");
        System.out.println("ok connector-j-prepared: " + checks.get() + " checks");
    }
}
