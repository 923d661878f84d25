//! User variables: as parameters, as the source of a text, and within one.

use super::*;

on_every_server! {
    parameters_are_the_sessions_own_variables => parameters;
    parameters_of_other_types => types;
    expressions_as_parameters => expressions;
    a_text_in_a_variable_is_the_one_it_was => sources;
    variables_within_a_text => within;
}

async fn parameters(server: &Server) {
    server.database("t_ps_using");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_using")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_using")).await;
    a.run("PREPARE s FROM 'SELECT ? AS x, ? + 1 AS y'").await;
    b.run("PREPARE s FROM 'SELECT ? AS x, ? + 2 AS y'").await;
    a.run("SET @i = 5").await;
    b.run("SET @i = 6").await;
    for given in ["@i,@i", "@I,@`i`", "@i,@i;"] {
        b.run(&format!("EXECUTE s USING {given}")).await;
        a.run(&format!("EXECUTE s USING {given}")).await;
    }
    assert_eq!(a.code("EXECUTE s").await, 1210);
    assert_eq!(b.code("EXECUTE s USING @i").await, 1210);
    a.run("SET @i = 7").await;
    b.run("EXECUTE s USING @i, @i").await;
    a.run("EXECUTE s USING @i, @i").await;
    a.run("DEALLOCATE PREPARE s").await;
    assert_eq!(a.code("EXECUTE s USING @i, @i").await, 1243);
    b.run("EXECUTE s USING @i, @i").await;
    assert_eq!(pins(&sidepool, ""), 0.0);
}

/// MySQL keeps the types of the first parameters, so that what comes later is made one of those. As long as
/// nobody else comes between, a session sees that; but never what another's parameters were.
async fn types(server: &Server) {
    server.database("t_ps_types");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_types")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_types")).await;
    let text = "PREPARE s FROM 'SELECT ? AS x'";
    a.run(text).await;
    a.run("SET @i = 5, @s = 'abc', @d = 1.5, @n = NULL").await;
    for given in ["@i", "@s", "@d", "@i", "@n", "@s"] {
        a.same(&format!("EXECUTE s USING {given}")).await;
    }
    b.run(text).await;
    b.run("SET @s = 'xyz', @i = 6").await;
    assert_eq!(b.text("EXECUTE s USING @s").await, "xyz");
    let clean = a.through.query("EXECUTE s USING @s").await;
    assert_eq!(clean.text(), "abc");
    b.run("EXECUTE s USING @s").await;
    let clean = a.through.query("EXECUTE s USING @i").await;
    assert_eq!(clean.text(), "5");
    assert_eq!(pins(&sidepool, ""), 0.0);
}

async fn expressions(server: &Server) {
    server.database("t_ps_expr");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_expr")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_expr")).await;
    a.run("PREPARE s FROM 'SELECT ?'").await;
    b.run("PREPARE s FROM 'SELECT 2'").await;
    a.same("EXECUTE s USING LAST_INSERT_ID(9)").await;
    b.run("EXECUTE s").await;
    b.run("SELECT LAST_INSERT_ID()").await;
    a.run("SELECT LAST_INSERT_ID()").await;
    a.same("EXECUTE s USING 1 + 1").await;
    assert_eq!(pins(&sidepool, ""), 0.0);
    a.same("EXECUTE s USING (@set := 3)").await;
    a.run("SELECT @set").await;
}

async fn sources(server: &Server) {
    server.database("t_ps_from");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_from")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_from")).await;
    a.run("SET @q = 'SET time_zone = ''+01:00'''").await;
    b.run("SET @q = 'SELECT 2'").await;
    a.run("PREPARE s FROM @q").await;
    b.run("PREPARE s FROM @Q;").await;
    a.run("SET @q = 'SELECT 3'").await;
    for _ in 0..2 {
        assert_eq!(b.text("EXECUTE s").await, "2");
        a.run("EXECUTE s").await;
        a.run("SELECT @q, @@time_zone").await;
        b.run("SELECT @q, @@time_zone").await;
        a.run("SET time_zone = '+02:00'").await;
    }
    assert_eq!(a.code("PREPARE s FROM @none").await, 1064);
    assert_eq!(a.code("EXECUTE s").await, 1243);
    assert_eq!(b.text("EXECUTE s").await, "2");
    wait_pinned(&sidepool, 0.0);
}

async fn within(server: &Server) {
    server.database("t_ps_within");
    let sidepool = Sidepool::sharing(server, 1);
    let mut a = Both::connect(server, &sidepool, Some("t_ps_within")).await;
    let mut b = Both::connect(server, &sidepool, Some("t_ps_within")).await;
    // On MySQL the type is that of when it was prepared.
    a.run("SET @v = 5").await;
    b.run("SET @v = 'x'").await;
    for both in [&mut a, &mut b] {
        both.run("PREPARE s FROM 'SELECT @v AS v'").await;
        both.run("PREPARE t FROM 'SET @w = CONCAT(@v, 1)'").await;
        both.run("PREPARE u FROM 'SELECT @v := 7'").await;
    }
    for value in ["'abc'", "1.5", "7", "NULL"] {
        for both in [&mut a, &mut b] {
            both.run(&format!("SET @v = {value}")).await;
            both.same("EXECUTE s").await;
        }
        for both in [&mut a, &mut b] {
            both.run("EXECUTE t").await;
            both.same("EXECUTE s").await;
        }
        a.run("EXECUTE u").await;
        for both in [&mut a, &mut b] {
            both.run("SELECT @v, @w").await;
        }
    }
    assert_eq!(pins(&sidepool, ""), 0.0);
}
