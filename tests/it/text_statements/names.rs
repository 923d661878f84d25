//! Names: whose they are, how they compare, and what becomes of them.

use super::*;

on_every_server! {
    names_are_each_sessions_own => own;
    a_name_is_compared_as_by_the_server => compared;
    preparing_again_replaces_and_failing_to_forgets => replaced;
    what_was_deallocated_is_unknown => deallocated;
    a_reset_forgets_them_all => reset;
    many_names_are_kept_in_bounds => many;
    names_that_cannot_be_compared_pin => odd;
    several_statements_in_one_text_pin => several;
    sources_that_are_no_literals_pin_until_they_are_gone => sources;
}

async fn own(server: &Server) {
    server.database("t_ps_own");
    let sidepool = Sidepool::sharing(server, 1);
    let database = Some("t_ps_own");
    let mut a = Both::connect(server, &sidepool, database).await;
    let mut b = Both::connect(server, &sidepool, database).await;
    let mut c = Both::connect(server, &sidepool, database).await;
    a.run("PREPARE s FROM 'SELECT 1'").await;
    assert_eq!(b.code("EXECUTE s").await, 1243);
    assert_eq!(b.code("DEALLOCATE PREPARE s").await, 1243);
    b.run("PREPARE s FROM 'SELECT 2'").await;
    for _ in 0..3 {
        assert_eq!(a.text("EXECUTE s").await, "1");
        assert_eq!(c.code("EXECUTE s").await, 1243);
        assert_eq!(b.text("EXECUTE s").await, "2");
    }
    b.run("DEALLOCATE PREPARE s").await;
    assert_eq!(a.text("EXECUTE s").await, "1");
    assert_eq!(b.code("EXECUTE s").await, 1243);
    a.run("DROP PREPARE s").await;
    assert_eq!(a.code("EXECUTE s").await, 1243);
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn compared(server: &Server) {
    server.database("t_ps_case");
    let sidepool = Sidepool::sharing(server, 1);
    let database = Some("t_ps_case");
    let mut a = Both::connect(server, &sidepool, database).await;
    let mut b = Both::connect(server, &sidepool, database).await;
    a.run("PREPARE Some_Name1 FROM 'SELECT 1'").await;
    b.run("PREPARE `some_name1` FROM \"SELECT 'it''s', \\\"2\\\"\"")
        .await;
    for name in ["SOME_NAME1", "`Some_Name1`", "some_name1"] {
        assert_eq!(a.text(&format!("EXECUTE {name}")).await, "1");
        assert_eq!(b.text(&format!("execute /* that */ {name};")).await, "it's");
    }
    a.run("SET sql_mode = 'ANSI_QUOTES'").await;
    assert_eq!(a.text("EXECUTE \"Some_Name1\"").await, "1");
    assert_eq!(b.code("EXECUTE 'some_name1'").await, 1064);
    assert_eq!(a.code("EXECUTE some_name2").await, 1243);
    assert_eq!(a.code("DEALLOCATE PREPARE 'some_name1'").await, 1064);
    assert_eq!(b.text("EXECUTE some_name1").await, "it's");
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn replaced(server: &Server) {
    server.database("t_ps_again");
    let sidepool = Sidepool::sharing(server, 1);
    let database = Some("t_ps_again");
    let mut a = Both::connect(server, &sidepool, database).await;
    let mut b = Both::connect(server, &sidepool, database).await;
    a.run("PREPARE s FROM 'SELECT 1'").await;
    b.run("PREPARE s FROM 'SELECT 10'").await;
    a.run("PREPARE s FROM 'SELECT 2'").await;
    assert_eq!(b.text("EXECUTE s").await, "10");
    assert_eq!(a.text("EXECUTE s").await, "2");
    for wrong in [
        "SELEC",
        "",
        "SELECT * FROM nosuch",
        "SELECT 1; SELECT 2",
        "PREPARE t FROM ''x''",
    ] {
        a.run("PREPARE s FROM 'SELECT 3'").await;
        b.run("EXECUTE s").await;
        a.same(&format!("PREPARE s FROM '{wrong}'")).await;
        a.same("SHOW WARNINGS").await;
        assert_eq!(a.code("EXECUTE s").await, 1243, "{wrong}");
        assert_eq!(b.text("EXECUTE s").await, "10");
    }
    // Nothing is prepared, so nothing is forgotten.
    a.run("PREPARE s FROM 'SELECT 4'").await;
    b.run("EXECUTE s").await;
    assert_eq!(a.text("EXECUTE s").await, "4");
    wait_pinned(&sidepool, 0.0);
}

async fn deallocated(server: &Server) {
    server.database("t_ps_gone");
    server.root("CREATE TABLE t_ps_gone.t (a INT)");
    let sidepool = Sidepool::sharing(server, 1);
    let database = Some("t_ps_gone");
    let mut a = Both::connect(server, &sidepool, database).await;
    let mut b = Both::connect(server, &sidepool, database).await;
    a.run("PREPARE s FROM 'SELECT COUNT(*) FROM t'").await;
    b.run("PREPARE r FROM 'SELECT 1'").await;
    // Another session's takes the place, a reset takes it away, and the table may be gone.
    b.run("PREPARE s FROM 'SELECT 2'").await;
    a.run("DEALLOCATE PREPARE s").await;
    assert_eq!(a.code("DEALLOCATE PREPARE s").await, 1243);
    assert_eq!(b.text("EXECUTE s").await, "2");
    a.run("PREPARE s FROM 'SELECT COUNT(*) FROM t'").await;
    b.run("EXECUTE s").await;
    b.run("DEALLOCATE PREPARE s").await;
    server.root("DROP TABLE t_ps_gone.t");
    a.run("DEALLOCATE PREPARE s").await;
    assert_eq!(a.code("EXECUTE s").await, 1243);
    assert_eq!(b.text("EXECUTE r").await, "1");
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn reset(server: &Server) {
    const RESET_CONNECTION: u8 = 31;
    server.database("t_ps_reset");
    let sidepool = Sidepool::sharing(server, 1);
    let database = Some("t_ps_reset");
    let mut a = Both::connect(server, &sidepool, database).await;
    let mut b = Both::connect(server, &sidepool, database).await;
    a.run("PREPARE s FROM 'SELECT 1'").await;
    b.run("PREPARE s FROM 'SELECT 2'").await;
    a.command(RESET_CONNECTION).await;
    assert_eq!(a.code("EXECUTE s").await, 1243);
    assert_eq!(b.text("EXECUTE s").await, "2");
    assert_eq!(a.code("DEALLOCATE PREPARE s").await, 1243);
    a.run("PREPARE s FROM 'SELECT 3'").await;
    assert_eq!(b.text("EXECUTE s").await, "2");
    assert_eq!(a.text("EXECUTE s").await, "3");
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn many(server: &Server) {
    server.database("t_ps_many");
    let sidepool = Sidepool::sharing(server, 1);
    let database = Some("t_ps_many");
    let count = || {
        let shown = server.root("SHOW GLOBAL STATUS LIKE 'Prepared_stmt_count'");
        shown.split('\t').nth(1).unwrap().parse::<usize>().unwrap()
    };
    let mut a = Both::connect(server, &sidepool, database).await;
    let mut b = Both::connect(server, &sidepool, database).await;
    for number in 0..60 {
        a.run(&format!("PREPARE a{number} FROM 'SELECT {number}'"))
            .await;
        b.run(&format!("PREPARE b{number} FROM 'SELECT 1{number}'"))
            .await;
    }
    for number in (0..60).step_by(7) {
        assert_eq!(
            a.text(&format!("EXECUTE a{number}")).await,
            number.to_string()
        );
        assert_eq!(
            b.text(&format!("EXECUTE b{number}")).await,
            format!("1{number}")
        );
    }
    // Other tests run on the same server: only far more would be noticed, were there no bound.
    assert!(count() < 1000);
    assert_eq!(pins(&sidepool, ""), 0.0);
    for number in 60..70 {
        a.run(&format!("PREPARE a{number} FROM 'SELECT {number}'"))
            .await;
    }
    wait_pins(&sidepool, "prepared_statement", 1.0);
    for number in 0..70 {
        assert_eq!(
            a.text(&format!("EXECUTE a{number}")).await,
            number.to_string()
        );
    }
    for number in 64..70 {
        a.run(&format!("DEALLOCATE PREPARE a{number}")).await;
    }
    wait_pinned(&sidepool, 0.0);
    assert_eq!(b.text("EXECUTE b1").await, "11");
    assert_eq!(a.text("EXECUTE a1").await, "1");
}

async fn odd(server: &Server) {
    server.database("t_ps_odd");
    let sidepool = Sidepool::sharing(server, 3);
    let database = Some("t_ps_odd");
    let mut other = Both::connect(server, &sidepool, database).await;
    other.run("PREPARE e FROM 'SELECT 1'").await;
    other.run("PREPARE s FROM 'SELECT 2'").await;
    for (name, alike) in [
        ("`é`", "e"),
        ("`s `", "s"),
        ("ß", "s"),
        ("`a``b`", "`a``b`"),
    ] {
        let mut one = Both::connect(server, &sidepool, database).await;
        // Whatever the server takes for the same name: another session's is not found.
        one.same(&format!("EXECUTE {name}")).await;
        one.same(&format!("PREPARE {name} FROM 'SELECT 3'")).await;
        one.same(&format!("EXECUTE {alike}")).await;
        one.same(&format!("EXECUTE {name}")).await;
        one.through.quit().await;
        assert_eq!(other.text("EXECUTE e").await, "1");
        assert_eq!(other.text("EXECUTE s").await, "2");
    }
    sidepool.wait("pinned", |s| pins(s, "prepared_statement") >= 4.0);
}

async fn several(server: &Server) {
    server.database("t_ps_several");
    let sidepool = Sidepool::sharing(server, 2);
    let database = Some("t_ps_several");
    let mut a = Both::connect(server, &sidepool, database).await;
    let mut b = Both::connect(server, &sidepool, database).await;
    a.run("PREPARE s FROM 'SELECT 1'").await;
    b.run("PREPARE r FROM 'SELECT 2'").await;
    a.run("DEALLOCATE PREPARE s; PREPARE s FROM 'SELECT 1'; PREPARE t FROM 'SELECT 3'")
        .await;
    wait_pins(&sidepool, "prepared_statement", 1.0);
    assert_eq!(a.code("DEALLOCATE PREPARE r").await, 1243);
    a.run("DEALLOCATE PREPARE t").await;
    assert_eq!(b.text("EXECUTE r").await, "2");
    a.command(31).await;
    sidepool.wait("unpinned", |s| pinned(s) == 0.0);
    assert_eq!(a.code("EXECUTE s").await, 1243);
    assert_eq!(b.text("EXECUTE r").await, "2");
    a.run("PREPARE s FROM 'SELECT 4'; EXECUTE s; EXECUTE s")
        .await;
    assert_eq!(a.code("EXECUTE r").await, 1243);
    assert_eq!(a.text("EXECUTE s").await, "4");
    assert_eq!(b.text("EXECUTE r").await, "2");
}

async fn sources(server: &Server) {
    server.database("t_ps_sources");
    let sidepool = Sidepool::sharing(server, 2);
    let database = Some("t_ps_sources");
    let mut b = Both::connect(server, &sidepool, database).await;
    b.run("PREPARE s FROM 'SELECT 2'").await;
    for source in [
        "_utf8mb4'SELECT 1'",
        "CONCAT('SELECT', ' 1')",
        "('SELECT 1')",
        "'SELECT ROW_COUNT()'",
        "'SELECT FOUND_ROWS()'",
        "'SHOW WARNINGS'",
        "nonsense",
        "NULL",
        "SUM(1)",
        "'SELECT' ' 1'",
        "'SELEC' 'T'",
    ] {
        let mut a = Both::connect(server, &sidepool, database).await;
        // It may or may not have been there still when the next fails.
        for first in ["DO 1", "PREPARE s FROM 'SELECT 9'"] {
            a.run(first).await;
            if let Reply::Err(_) = &a.same(&format!("PREPARE s FROM {source}")).await[0] {
                b.run("EXECUTE s").await;
                a.same("EXECUTE s").await;
            }
            a.same("DEALLOCATE PREPARE s").await;
        }
        a.through.quit().await;
        wait_pinned(&sidepool, 0.0);
        let mut a = Both::connect(server, &sidepool, database).await;
        let before = pins(&sidepool, "prepared_statement");
        let made = a.same(&format!("PREPARE s FROM {source}")).await;
        if let Reply::Err(_) = &made[0] {
            assert_eq!(a.code("EXECUTE s").await, 1243, "{source}");
        } else {
            let pinning = f64::from(source != "'SELECT' ' 1'");
            wait_pinned(&sidepool, pinning);
            for _ in 0..2 {
                a.run("SELECT 1 UNION SELECT 2").await;
                b.run("EXECUTE s").await;
                a.run("EXECUTE s").await;
            }
            a.run("DEALLOCATE PREPARE s").await;
            wait_pins(&sidepool, "prepared_statement", before + pinning);
        }
        a.through.quit().await;
        assert_eq!(b.text("EXECUTE s").await, "2");
    }
}
