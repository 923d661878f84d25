// Go's database/sql as most programs use it: every query with arguments is prepared, executed and closed by the driver,
// statements of one's own are prepared on whatever connection of the pool is free. None of its connections may be pinned.
package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"database/sql"
	"errors"
	"fmt"
	"math"
	"math/rand"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/go-sql-driver/mysql"
)

const (
	accounts = "t_go_accounts"
	items    = "t_go_items"
	place    = "t_go_place"
)

var (
	checks  int64
	clients = number("SP_CLIENTS", 20)
	rounds  = number("SP_ROUNDS", 15)
	ctx     = context.Background()
)

func number(name string, otherwise int) int {
	if given, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return given
	}
	return otherwise
}

func fail(what string, detail ...interface{}) {
	fmt.Fprintf(os.Stderr, "FAILED go-placeholders: %s: %.400s\n", what, fmt.Sprint(detail...))
	os.Exit(1)
}

func equal(what string, got, expected interface{}) {
	if got != expected {
		fail(what, fmt.Sprintf("expected %#v, got %#v", expected, got))
	}
	atomic.AddInt64(&checks, 1)
}

func must(what string, err error) {
	if err != nil {
		fail(what, err)
	}
}

func code(err error) int {
	var known *mysql.MySQLError
	if errors.As(err, &known) {
		return int(known.Number)
	}
	return 0
}

func open(options string) *sql.DB {
	encrypted := "false"
	if os.Getenv("SP_TLS") == "1" {
		must("TLS", mysql.RegisterTLSConfig("unverified", &tls.Config{InsecureSkipVerify: true}))
		encrypted = "unverified"
	}
	name := fmt.Sprintf("%s:%s@tcp(%s:%s)/%s?charset=utf8mb4&parseTime=true&interpolateParams=false&tls=%s%s", os.Getenv("SP_USER"),
		os.Getenv("SP_PASSWORD"), os.Getenv("SP_HOST"), os.Getenv("SP_PORT"), os.Getenv("SP_DATABASE"), encrypted, options)
	db, err := sql.Open("mysql", name)
	must("open", err)
	db.SetMaxOpenConns(clients)
	db.SetMaxIdleConns(clients)
	return db
}

// Runs one function per client at the same time.
func all(work func(i int)) {
	var wait sync.WaitGroup
	for i := 0; i < clients; i++ {
		wait.Add(1)
		go func(i int) {
			defer wait.Done()
			work(i)
		}(i)
	}
	wait.Wait()
}

func prepare(db *sql.DB) {
	other := os.Getenv("SP_DATABASE") + "_other"
	for _, statement := range []string{
		"DROP TABLE IF EXISTS " + accounts + ", " + items + ", " + place + ", " + other + "." + place,
		"CREATE TABLE " + accounts + " (id INT PRIMARY KEY, amount BIGINT NOT NULL)",
		"CREATE TABLE " + items + " (id BIGINT AUTO_INCREMENT PRIMARY KEY, owner INT NOT NULL, name VARCHAR(60), f DOUBLE, b LONGBLOB," +
			" at DATETIME(6), yes BOOLEAN, UNIQUE (owner, name)) CHARACTER SET utf8mb4",
		"CREATE TABLE " + place + " (place VARCHAR(10)) CHARACTER SET utf8mb4",
		"CREATE TABLE " + other + "." + place + " (place VARCHAR(10)) CHARACTER SET utf8mb4",
	} {
		_, err := db.Exec(statement)
		must(statement, err)
	}
	for i := 0; i < clients; i++ {
		_, err := db.Exec("INSERT INTO "+accounts+" VALUES (?, ?)", i, 1000)
		must("an account", err)
	}
	for name, where := range map[string]string{"here": place, "there": other + "." + place} {
		_, err := db.Exec("INSERT INTO "+where+" VALUES (?)", name)
		must("a place", err)
	}
}

// As many connections as there are clients, each with a statement of its own that it keeps: more than the proxy has.
func held(db *sql.DB) {
	connections := make([]*sql.Conn, clients)
	statements := make([]*sql.Stmt, clients)
	for i := range connections {
		var err error
		connections[i], err = db.Conn(ctx)
		must("connection", err)
		statements[i], err = connections[i].PrepareContext(ctx, fmt.Sprintf("SELECT CONCAT('%d/', ?), ? + %d", i, i))
		must("prepare", err)
	}
	equal("connections at once", db.Stats().OpenConnections, clients)
	all(func(i int) {
		for n := 0; n < rounds; n++ {
			var text string
			var sum int64
			word := fmt.Sprintf("é😀%d", n)
			must("held statement", statements[i].QueryRow(word, n).Scan(&text, &sum))
			equal("held statement", text, fmt.Sprintf("%d/%s", i, word))
			equal("held statement", sum, int64(i+n))
		}
	})
	for i := range connections {
		must("close", statements[i].Close())
		must("return", connections[i].Close())
	}
}

// One statement for all: database/sql prepares it on each connection that it is used on.
func shared(db *sql.DB) {
	statement, err := db.Prepare("SELECT ?, ?, ?, ? IS NULL")
	must("prepare", err)
	defer statement.Close()
	all(func(i int) {
		dice := rand.New(rand.NewSource(int64(i)))
		for n := 0; n < rounds; n++ {
			word := strings.Repeat("ü", dice.Intn(300))
			binary := make([]byte, dice.Intn(5000))
			dice.Read(binary)
			big := dice.Int63() - math.MaxInt64/2
			var gotWord string
			var gotBinary []byte
			var gotBig int64
			var null bool
			must("shared statement", statement.QueryRow(word, binary, big, nil).Scan(&gotWord, &gotBinary, &gotBig, &null))
			equal("word", gotWord, word)
			equal("binary", bytes.Equal(gotBinary, binary), true)
			equal("big", gotBig, big)
			equal("NULL", null, true)
		}
	})
}

// Rows in and out, with the ids that the answers carry, on whichever connection.
func rows(db *sql.DB) {
	all(func(i int) {
		at := time.Date(2024, 2, 29, 12, 34, 56, 123456000, time.UTC)
		for n := 0; n < rounds; n++ {
			name := fmt.Sprintf("item %d 😀", n)
			var float interface{} = float64(n) + 0.25
			if n%3 == 0 {
				float = nil
			}
			result, err := db.Exec("INSERT INTO "+items+" (owner, name, f, b, at, yes) VALUES (?, ?, ?, ?, ?, ?)", i, name, float,
				bytes.Repeat([]byte{byte(n), 0, 0xff}, 700*n), at, n%2 == 0)
			must("insert", err)
			id, err := result.LastInsertId()
			must("id", err)
			var owner int
			var gotName string
			var gotFloat sql.NullFloat64
			var binary []byte
			var gotAt time.Time
			var yes bool
			must("select", db.QueryRow("SELECT owner, name, f, b, at, yes FROM "+items+" WHERE id = ?", id).
				Scan(&owner, &gotName, &gotFloat, &binary, &gotAt, &yes))
			equal("owner", owner, i)
			equal("name", gotName, name)
			equal("float", gotFloat, sql.NullFloat64{Float64: gotFloat.Float64, Valid: n%3 != 0})
			equal("float's value", gotFloat.Float64, map[bool]float64{true: float64(n) + 0.25}[n%3 != 0])
			equal("binary", bytes.Equal(binary, bytes.Repeat([]byte{byte(n), 0, 0xff}, 700*n)), true)
			equal("time", gotAt.Equal(at), true)
			equal("boolean", yes, n%2 == 0)
			_, err = db.Exec("INSERT INTO "+items+" (owner, name) VALUES (?, ?)", i, name)
			equal("duplicate key", code(err), 1062)
		}
		list, err := db.Query("SELECT name FROM "+items+" WHERE owner = ? AND id > ? ORDER BY id", i, 0)
		must("list", err)
		seen := 0
		for list.Next() {
			var name string
			must("scan", list.Scan(&name))
			equal("listed name", name, fmt.Sprintf("item %d 😀", seen))
			seen++
		}
		must("list", list.Err())
		equal("listed rows", seen, rounds)
		result, err := db.Exec("UPDATE "+items+" SET f = f + ? WHERE owner = ?", 1, i)
		must("update", err)
		changed, _ := result.RowsAffected()
		equal("rows changed", changed, int64(rounds-(rounds+2)/3))
	})
}

// Money moves between accounts under several isolation levels, with statements of the pool used inside transactions.
func transfers(db *sql.DB) {
	take, err := db.Prepare("UPDATE " + accounts + " SET amount = amount - ? WHERE id = ?")
	must("prepare", err)
	give, err := db.Prepare("UPDATE " + accounts + " SET amount = amount + ? WHERE id = ?")
	must("prepare", err)
	balance := make([]int64, clients)
	for i := range balance {
		balance[i] = 1000
	}
	var lock sync.Mutex
	levels := []sql.IsolationLevel{sql.LevelDefault, sql.LevelReadCommitted, sql.LevelRepeatableRead}
	all(func(i int) {
		dice := rand.New(rand.NewSource(int64(i)))
		for n := 0; n < rounds; {
			to := (i + 1 + dice.Intn(clients-1)) % clients
			amount := int64(dice.Intn(50))
			keep := dice.Intn(4) > 0
			err := transfer(db, take, give, levels[dice.Intn(3)], i, to, amount, keep)
			if code(err) == 1213 {
				continue // a deadlock is the database's, and is tried again
			}
			must("transfer", err)
			if keep {
				lock.Lock()
				balance[i] -= amount
				balance[to] += amount
				lock.Unlock()
			}
			n++
		}
	})
	for i, expected := range balance {
		var amount int64
		must("amount", db.QueryRow("SELECT amount FROM "+accounts+" WHERE id = ?", i).Scan(&amount))
		equal("amount", amount, expected)
	}
	must("close", take.Close())
	must("close", give.Close())
}

func transfer(db *sql.DB, take, give *sql.Stmt, level sql.IsolationLevel, from, to int, amount int64, keep bool) error {
	tx, err := db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		return err
	}
	defer tx.Rollback()
	var before, after int64
	if err := tx.QueryRow("SELECT amount FROM "+accounts+" WHERE id = ? FOR UPDATE", from).Scan(&before); err != nil {
		return err
	}
	if _, err := tx.Stmt(take).Exec(amount, from); err != nil {
		return err
	}
	inside, err := tx.Prepare("SELECT amount FROM " + accounts + " WHERE id = ?")
	if err != nil {
		return err
	}
	defer inside.Close()
	if err := inside.QueryRow(from).Scan(&after); err != nil {
		return err
	}
	equal("own change", after, before-amount)
	if _, err := tx.Exec("SAVEPOINT s"); err != nil {
		return err
	}
	if _, err := tx.Stmt(give).Exec(amount+7, to); err != nil {
		return err
	}
	if _, err := tx.Exec("ROLLBACK TO SAVEPOINT s"); err != nil {
		return err
	}
	if _, err := tx.Stmt(give).Exec(amount, to); err != nil {
		return err
	}
	if keep {
		return tx.Commit()
	}
	return tx.Rollback()
}

// A statement means what it meant when it was prepared, whatever database is chosen later.
func databases(db *sql.DB) {
	name := os.Getenv("SP_DATABASE")
	all(func(i int) {
		c, err := db.Conn(ctx)
		must("connection", err)
		defer c.Close()
		here, err := c.PrepareContext(ctx, "SELECT place, DATABASE() FROM "+place+" WHERE ? = ?")
		must("prepare", err)
		defer here.Close()
		for n := 0; n < rounds; n++ {
			for _, now := range []struct{ database, place string }{{name + "_other", "there"}, {name, "here"}} {
				_, err = c.ExecContext(ctx, "USE "+now.database)
				must("USE", err)
				var got, at string
				must("kept statement", here.QueryRow(n, n).Scan(&got, &at))
				equal("kept statement", got, "here")
				equal("DATABASE() in a kept statement", at, name)
				must("new statement", c.QueryRowContext(ctx, "SELECT place FROM "+place+" WHERE ? = ?", n, n).Scan(&got))
				equal("new statement", got, now.place)
			}
		}
	})
}

// Statements given up in the middle: the driver throws such a connection away, the others must not notice.
func cancelled(db *sql.DB) {
	all(func(i int) {
		if i%4 == 0 {
			soon, stop := context.WithTimeout(ctx, 300*time.Millisecond)
			defer stop()
			var got int
			err := db.QueryRowContext(soon, "SELECT SLEEP(?)", 60).Scan(&got)
			equal("cancelled", errors.Is(err, context.DeadlineExceeded), true)
			return
		}
		for n := 0; n < rounds; n++ {
			var got int
			must("beside cancelled ones", db.QueryRow("SELECT ? * 2", i*n).Scan(&got))
			equal("beside cancelled ones", got, i*n*2)
		}
	})
	var got int
	must("after cancelled ones", db.QueryRow("SELECT ? + 1", 41).Scan(&got))
	equal("after cancelled ones", got, 42)
	must("ping", db.Ping())
}

func faults(db *sql.DB) {
	_, err := db.Prepare("SELEC ?")
	equal("syntax error", code(err), 1064)
	_, err = db.Prepare("SELECT a FROM t_go_gone WHERE a = ?")
	equal("unknown table", code(err), 1146)
	statement, err := db.Prepare("INSERT INTO " + accounts + " VALUES (?, ?)")
	must("prepare", err)
	for i := 0; i < 3; i++ {
		_, err = statement.Exec(0, 1)
		equal("duplicate key", code(err), 1062)
		_, err = statement.Exec(1_000_000+i, nil)
		equal("NULL in a column without", code(err), 1048)
		_, err = statement.Exec(1_000_000+i, i)
		must("after errors", err)
	}
	_, err = statement.Exec(1)
	equal("too few arguments", err != nil && code(err) == 0, true)
	must("close", statement.Close())
}

func main() {
	db := open("")
	prepare(db)
	for _, part := range []func(*sql.DB){held, shared, rows, transfers, databases, cancelled, faults} {
		part(db)
	}
	must("close", db.Close())
	few := open("")
	few.SetMaxIdleConns(2)
	shared(few)
	must("close", few.Close())
	fmt.Printf("ok go-placeholders: %d checks\n", checks)
}
