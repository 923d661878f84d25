// Go's usual driver through database/sql: its pool, prepared and interpolated statements.
package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	table = "t_go"
	large = 20 << 20
	types = "SELECT 1, CAST(-9223372036854775808 AS SIGNED), 18446744073709551615, CAST('12345.678901' AS DECIMAL(20,6)), 1.5e0," +
		" CAST(x'ff00fe' AS BINARY(3)), NULL, 'h\u00e9llo', '\U0001f600\u65e5\u672c', '', CAST('2024-02-29' AS DATE)," +
		" CAST('2024-02-29 12:34:56.123456' AS DATETIME(6)), CAST('-12:34:56' AS TIME)"
)

var checks int

func fail(what string, detail ...interface{}) {
	fmt.Fprintf(os.Stderr, "FAILED go: %s: %.400s\n", what, fmt.Sprint(detail...))
	os.Exit(1)
}

func equal(what string, got, expected interface{}) {
	if !reflect.DeepEqual(got, expected) {
		fail(what, fmt.Sprintf("expected %#v, got %#v", expected, got))
	}
	checks++
}

func must(what string, err error) {
	if err != nil {
		fail(what, err)
	}
}

func open(options string) *sql.DB {
	database := os.Getenv("SP_DATABASE")
	encrypted := "false"
	if os.Getenv("SP_TLS") == "1" {
		must("TLS", mysql.RegisterTLSConfig("unverified", &tls.Config{InsecureSkipVerify: true}))
		encrypted = "unverified"
	}
	name := fmt.Sprintf("%s:%s@tcp(%s:%s)/%s?charset=utf8mb4&maxAllowedPacket=67108864&tls=%s%s", os.Getenv("SP_USER"),
		os.Getenv("SP_PASSWORD"), os.Getenv("SP_HOST"), os.Getenv("SP_PORT"), database, encrypted, options)
	db, err := sql.Open("mysql", name)
	must("open", err)
	return db
}

func one(c *sql.Conn, query string, arguments ...interface{}) string {
	var got sql.NullString
	must(query, c.QueryRowContext(context.Background(), query, arguments...).Scan(&got))
	if !got.Valid {
		return "NULL"
	}
	return got.String
}

func exec(c *sql.Conn, query string, arguments ...interface{}) sql.Result {
	result, err := c.ExecContext(context.Background(), query, arguments...)
	must(query, err)
	return result
}

func errorOf(_ interface{}, err error) int {
	var known *mysql.MySQLError
	if errors.As(err, &known) {
		return int(known.Number)
	}
	return 0
}

func rows(c *sql.Conn, how string) {
	expected := []string{"1", "-9223372036854775808", "18446744073709551615", "12345.678901", "1.5", "\xff\x00\xfe", "NULL",
		"h\u00e9llo", "\U0001f600\u65e5\u672c", "", "2024-02-29", "2024-02-29 12:34:56.123456", "-12:34:56"}
	got := make([]sql.NullString, len(expected))
	into := make([]interface{}, len(expected))
	for i := range got {
		into[i] = &got[i]
	}
	must("types", c.QueryRowContext(context.Background(), types+" WHERE 1 = ?", 1).Scan(into...))
	for i := range got {
		if !got[i].Valid {
			got[i].String = "NULL"
		}
		equal(fmt.Sprintf("column %d, %s", i, how), got[i].String, expected[i])
	}
	equal("parameters, "+how, one(c, "SELECT CONCAT(?, ?)", "it's \U0001f600 \\", 5), "it's \U0001f600 \\5")
}

func changes(c *sql.Conn, how string) {
	ctx := context.Background()
	result := exec(c, "INSERT INTO "+table+" (name) VALUES ('a'), ('b'), ('c')")
	affected, _ := result.RowsAffected()
	equal("affected rows, "+how, affected, int64(3))
	id, _ := result.LastInsertId()
	equal("last insert id, "+how, one(c, "SELECT LAST_INSERT_ID()"), fmt.Sprint(id))
	for _, keep := range []bool{false, true} {
		tx, err := c.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelReadCommitted})
		must("begin", err)
		_, err = tx.Exec("INSERT INTO "+table+" (name) VALUES (?)", "in a transaction")
		must("insert", err)
		if keep {
			must("commit", tx.Commit())
		} else {
			must("rollback", tx.Rollback())
		}
	}
	equal("after transactions, "+how, one(c, "SELECT COUNT(*) FROM "+table), "4")
	equal("duplicate key, "+how, errorOf(c.ExecContext(ctx, "INSERT INTO "+table+" (name) VALUES (?)", "a")), 1062)
	equal("usable after an error, "+how, one(c, "SELECT 7"), "7")
	statement, err := c.PrepareContext(ctx, "INSERT INTO "+table+" (name) VALUES (?)")
	must("prepare", err)
	for i := 0; i < 10; i++ {
		_, err = statement.Exec(fmt.Sprint("prepared ", i))
		must("execute", err)
	}
	must("close", statement.Close())
	equal("after executions, "+how, one(c, "SELECT COUNT(*) FROM "+table), "14")
}

func session(c *sql.Conn, how string) {
	exec(c, "SET sql_mode = ''")
	exec(c, "INSERT INTO "+table+" (name, short) VALUES ('w', 'abcdefghij')")
	var level, message string
	var code int
	must("SHOW WARNINGS", c.QueryRowContext(context.Background(), "SHOW WARNINGS").Scan(&level, &code, &message))
	equal("warnings, "+how, code, 1265)
	exec(c, "SET time_zone = '+03:00', sql_mode = 'ANSI_QUOTES'")
	equal("time zone, "+how, one(c, "SELECT FROM_UNIXTIME(0)"), "1970-01-01 03:00:00")
	equal("sql_mode, "+how, one(c, `SELECT "name" FROM "`+table+`" WHERE id = ?`, 1), "a")
	exec(c, "SET @a = 5")
	equal("user variable, "+how, one(c, "SELECT @a"), "5")
	exec(c, "USE "+os.Getenv("SP_DATABASE")+"_other")
	equal("USE, "+how, one(c, "SELECT DATABASE()"), os.Getenv("SP_DATABASE")+"_other")
	exec(c, "USE "+os.Getenv("SP_DATABASE"))
	must("ping", c.PingContext(context.Background()))
}

func values(c *sql.Conn, how string) {
	value := make([]byte, large)
	_, err := rand.Read(value)
	must("random", err)
	exec(c, "INSERT INTO "+table+" (name, big) VALUES ('large', ?)", value)
	var got []byte
	must("large", c.QueryRowContext(context.Background(), "SELECT big FROM "+table+" WHERE name = ?", "large").Scan(&got))
	equal("20 MB there and back, "+how, bytes.Equal(got, value), true)
	var lines strings.Builder
	for i := 0; i < 5000; i++ {
		fmt.Fprintf(&lines, "row %d\tabc\n", i)
	}
	mysql.RegisterReaderHandler("rows", func() io.Reader { return strings.NewReader(lines.String()) })
	loaded, _ := exec(c, "LOAD DATA LOCAL INFILE 'Reader::rows' INTO TABLE "+table+" (name, short)").RowsAffected()
	equal("rows loaded, "+how, loaded, int64(5000))
}

// A statement given up in the middle: its connection is thrown away, the others must not notice.
func cancelled(db *sql.DB) {
	ctx, stop := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer stop()
	_, err := db.ExecContext(ctx, "DO SLEEP(20)")
	equal("cancelled", errors.Is(err, context.DeadlineExceeded), true)
	var answer int
	must("after a cancelled statement", db.QueryRow("SELECT 42").Scan(&answer))
	equal("after a cancelled statement", answer, 42)
}

func many(db *sql.DB) {
	db.SetMaxOpenConns(20)
	db.SetMaxIdleConns(5)
	var wait sync.WaitGroup
	wrong := make(chan string, 100)
	for i := 0; i < 100; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			var got int
			if err := db.QueryRow("SELECT ? + 0", i).Scan(&got); err != nil || got != i {
				wrong <- fmt.Sprint(i, " got ", got, " ", err)
			}
		}(i)
	}
	wait.Wait()
	equal("through a pool", len(wrong), 0)
}

func several() {
	db := open("&multiStatements=true")
	defer db.Close()
	results, err := db.Query("SELECT 1; SELECT 2; SELECT 3")
	must("multi-statements", err)
	var got []int
	for {
		for results.Next() {
			var n int
			must("scan", results.Scan(&n))
			got = append(got, n)
		}
		if !results.NextResultSet() {
			break
		}
	}
	must("multi-statements", results.Err())
	equal("multi-statements", got, []int{1, 2, 3})
}

func main() {
	for how, options := range map[string]string{"prepared": "", "interpolated": "&interpolateParams=true"} {
		db := open(options)
		c, err := db.Conn(context.Background())
		must("connect", err)
		exec(c, "DROP TABLE IF EXISTS "+table)
		exec(c, "CREATE TABLE "+table+" (id INT AUTO_INCREMENT PRIMARY KEY, name VARCHAR(20) UNIQUE, short VARCHAR(5),"+
			" big LONGBLOB) CHARACTER SET utf8mb4")
		rows(c, how)
		changes(c, how)
		session(c, how)
		values(c, how)
		exec(c, "DROP TABLE "+table)
		must("return", c.Close())
		cancelled(db)
		many(db)
		must("close", db.Close())
	}
	several()
	fmt.Printf("ok go: %d checks\n", checks)
}
