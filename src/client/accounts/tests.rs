use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::protocol::auth::server::{AuthFailure, KnownSecret as Fits, ProvedBy};

/// A database with one user, `app`.
#[derive(Default)]
struct Database {
    passwords: Mutex<Vec<&'static str>>,
    logins: AtomicUsize,
    answer: Mutex<Option<Result<Proof, ProveError>>>,
    /// When set, logins wait for it.
    gate: Mutex<Option<Arc<Notify>>>,
    revoked: Mutex<Vec<(AccountId, SecretId)>>,
}

struct DatabaseRef(Arc<Database>);

impl Prover for DatabaseRef {
    fn prove(&self, request: ProofRequest) -> ProofFuture {
        let database = Arc::clone(&self.0);
        Box::pin(async move {
            database.logins.fetch_add(1, Ordering::Relaxed);
            let gate = database.gate.lock().clone();
            if let Some(gate) = gate {
                gate.notified().await;
            }
            if let Some(answer) = database.answer.lock().clone() {
                return answer;
            }
            let passwords = database.passwords.lock();
            let right = request.account.user() == &b"app"[..]
                && passwords
                    .iter()
                    .any(|p| p.as_bytes() == request.secret.expose());
            if right {
                Ok(Proof::Lasting)
            } else {
                Err(denied(1045))
            }
        })
    }

    fn revoked(&self, account: &Arc<Account>, secret: SecretId) {
        self.0.revoked.lock().push((account.id(), secret));
    }
}

fn error(code: u16) -> ServerError {
    ServerError {
        code,
        sqlstate: SqlState::HY000,
        message: Bytes::from_static(b"words"),
    }
}

fn denied(code: u16) -> ProveError {
    ProveError::Denied(error(code))
}

fn secret(text: &str) -> Secret {
    Secret::new(text.as_bytes())
}

fn users(list: &[(&str, &str)]) -> BTreeMap<String, Secret> {
    let pair = |(name, password): &(&str, &str)| ((*name).to_owned(), secret(password));
    list.iter().map(pair).collect()
}

struct World {
    accounts: Arc<Accounts>,
    database: Arc<Database>,
}

fn world(mode: AuthMode, list: &[(&str, &str)]) -> World {
    let database = Arc::new(Database::default());
    *database.passwords.lock() = vec!["right"];
    let settings = AuthSettings {
        mode,
        ..AuthSettings::default()
    };
    let prover = Arc::new(DatabaseRef(Arc::clone(&database)));
    let accounts = Arc::new(Accounts::new(settings, &users(list), prover));
    World { accounts, database }
}

impl World {
    /// What the exchange would end in: a scramble that fits, or else the password.
    async fn log_in(&self, user: &str, password: &str) -> Result<Identity, Refusal> {
        let candidates = self.accounts.lookup(user.as_bytes());
        let fits = candidates
            .secrets()
            .iter()
            .position(|s| s.expose() == password.as_bytes());
        let verdict = match fits {
            Some(index) => Verdict::Known(Fits {
                index,
                plugin: ProvedBy::CachingSha2,
            }),
            None => Verdict::Cleartext(secret(password)),
        };
        self.accounts
            .decide(user.as_bytes(), &candidates, &verdict)
            .await
    }

    fn logins(&self) -> usize {
        self.database.logins.load(Ordering::Relaxed)
    }
}

const RECHECK: Duration = Duration::from_secs(60);

#[tokio::test(start_paused = true)]
async fn a_fresh_proof_admits_and_a_stale_one_is_proved_again_without_the_client() {
    let world = world(AuthMode::Passthrough, &[]);
    let first = world.log_in("app", "right").await.unwrap();
    tokio::time::advance(RECHECK - Duration::from_secs(1)).await;
    let second = world.log_in("app", "right").await.unwrap();
    assert_eq!(
        (world.logins(), first.account.id()),
        (1, second.account.id())
    );
    tokio::time::advance(Duration::from_secs(1)).await;
    assert_eq!(world.accounts.lookup(b"app").secrets().len(), 1);
    let third = world.log_in("app", "right").await.unwrap();
    assert_eq!((world.logins(), third.secret), (2, first.secret));
    world.log_in("app", "right").await.unwrap();
    assert_eq!(world.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_login_of_the_pool_is_as_good_as_a_proof() {
    let world = world(AuthMode::Passthrough, &[]);
    let first = world.log_in("app", "right").await.unwrap();
    tokio::time::advance(RECHECK).await;
    first.account.confirmed(&secret("right"));
    world.log_in("app", "right").await.unwrap();
    assert_eq!(world.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn wrong_passwords_always_go_to_the_database_and_leave_nothing_behind() {
    let world = world(AuthMode::Passthrough, &[]);
    for (user, password) in [("app", "wrong"), ("nobody", "right"), ("app", "wrong")] {
        let refused = world.log_in(user, password).await.unwrap_err();
        assert_eq!(refused, Refusal::AccessDenied);
    }
    assert_eq!(world.logins(), 3);
    let book = world.accounts.shared.book.lock();
    assert!(book.accounts.is_empty() && book.newcomers.is_empty() && book.proofs.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_rotated_password_is_found_out_and_the_old_one_revoked() {
    let world = world(AuthMode::Passthrough, &[]);
    let old = world.log_in("app", "right").await.unwrap();
    *world.database.passwords.lock() = vec!["right", "new"];
    let new = world.log_in("app", "new").await.unwrap();
    assert_eq!(new.account.id(), old.account.id());
    assert_eq!(world.accounts.lookup(b"app").secrets().len(), 2);
    // The old password is taken away: its next stale use finds out, the account stays.
    *world.database.passwords.lock() = vec!["new"];
    tokio::time::advance(RECHECK).await;
    assert_eq!(
        world.log_in("app", "right").await.unwrap_err(),
        Refusal::AccessDenied
    );
    assert_eq!(
        *world.database.revoked.lock(),
        [(old.account.id(), old.secret)]
    );
    let again = world.log_in("app", "new").await.unwrap();
    assert_eq!(
        (again.account.id(), again.secret),
        (new.account.id(), new.secret)
    );
    assert_eq!(
        again.account.login_secret().unwrap().secret.expose(),
        b"new"
    );
}

#[tokio::test(start_paused = true)]
async fn an_account_that_lost_its_last_secret_comes_back_as_another() {
    let world = world(AuthMode::Passthrough, &[]);
    let before = world.log_in("app", "right").await.unwrap();
    before.account.denied(&secret("right"));
    // Said twice, it is revoked once.
    before.account.denied(&secret("right"));
    assert_eq!(
        *world.database.revoked.lock(),
        [(before.account.id(), before.secret)]
    );
    assert!(before.account.login_secret().is_none());
    let after = world.log_in("app", "right").await.unwrap();
    assert_ne!(after.account.id(), before.account.id());
}

#[tokio::test(start_paused = true)]
async fn a_third_password_makes_the_least_recently_proved_one_go() {
    let world = world(AuthMode::Passthrough, &[]);
    *world.database.passwords.lock() = vec!["1", "2", "3"];
    for password in ["1", "2", "3"] {
        world.log_in("app", password).await.unwrap();
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let candidates = world.accounts.lookup(b"app");
    let kept: Vec<_> = candidates
        .secrets()
        .iter()
        .map(|s| s.expose().to_vec())
        .collect();
    assert_eq!(kept, [b"3", b"2"]);
}

#[tokio::test(start_paused = true)]
async fn many_clients_at_once_cause_one_login() {
    let world = Arc::new(world(AuthMode::Passthrough, &[]));
    for expected in 1..=2 {
        let gate = Arc::new(Notify::new());
        *world.database.gate.lock() = Some(Arc::clone(&gate));
        let clients: Vec<_> = (0..200)
            .map(|_| {
                let world = Arc::clone(&world);
                tokio::spawn(async move { world.log_in("app", "right").await })
            })
            .collect();
        while world.logins() < expected {
            tokio::task::yield_now().await;
        }
        gate.notify_one();
        for client in clients {
            client.await.unwrap().unwrap();
        }
        assert_eq!(world.logins(), expected);
        tokio::time::advance(RECHECK).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_proof_is_finished_and_remembered_though_its_client_left() {
    let world = world(AuthMode::Passthrough, &[]);
    let gate = Arc::new(Notify::new());
    *world.database.gate.lock() = Some(Arc::clone(&gate));
    let client = tokio::time::timeout(Duration::from_millis(1), world.log_in("app", "right"));
    assert!(client.await.is_err());
    gate.notify_one();
    *world.database.gate.lock() = None;
    world.log_in("app", "right").await.unwrap();
    assert_eq!(world.logins(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_unreachable_database_neither_admits_nor_forgets() {
    let world = world(AuthMode::Passthrough, &[]);
    let first = world.log_in("app", "right").await.unwrap();
    tokio::time::advance(RECHECK).await;
    *world.database.answer.lock() = Some(Err(ProveError::Unavailable(error(2003))));
    let refused = world.log_in("app", "right").await.unwrap_err();
    assert_eq!(refused, Refusal::Unavailable(error(2003)));
    *world.database.answer.lock() = None;
    let again = world.log_in("app", "right").await.unwrap();
    assert_eq!(again.secret, first.secret);
    assert!(world.database.revoked.lock().is_empty());
}

#[tokio::test(start_paused = true)]
async fn other_denials_keep_the_database_s_words() {
    let world = world(AuthMode::Passthrough, &[]);
    *world.database.answer.lock() = Some(Err(denied(3118)));
    let refused = world.log_in("app", "right").await.unwrap_err();
    assert_eq!(refused, Refusal::Denied(error(3118)));
    *world.database.answer.lock() = Some(Err(ProveError::NotProof));
    let refused = world.log_in("app", "right").await.unwrap_err();
    assert_eq!(refused, Refusal::AccessDenied);
}

#[tokio::test(start_paused = true)]
async fn an_account_blocked_by_others_failures_is_not_forgotten() {
    let world = world(AuthMode::Passthrough, &[]);
    let before = world.log_in("app", "right").await.unwrap();
    tokio::time::advance(RECHECK).await;
    *world.database.answer.lock() = Some(Err(ProveError::Blocked(error(3955))));
    let refused = world.log_in("app", "right").await.unwrap_err();
    assert_eq!(refused, Refusal::Denied(error(3955)));
    assert!(world.database.revoked.lock().is_empty());
    *world.database.answer.lock() = None;
    let after = world.log_in("app", "right").await.unwrap();
    assert_eq!(after.account.id(), before.account.id());
}

#[tokio::test(start_paused = true)]
async fn an_expired_password_is_good_for_one_session() {
    let world = world(AuthMode::Passthrough, &[]);
    *world.database.answer.lock() = Some(Ok(Proof::Once));
    let one = world.log_in("app", "right").await.unwrap();
    let two = world.log_in("app", "right").await.unwrap();
    assert_ne!(one.account.id(), two.account.id());
    assert_eq!(world.logins(), 2);
    assert_eq!(
        one.account.login_secret().unwrap().secret.expose(),
        b"right"
    );
    assert!(world.accounts.lookup(b"app").secrets().is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_preloaded_secret_is_a_candidate_but_must_be_proved() {
    let world = world(AuthMode::Passthrough, &[("app", "right"), ("other", "x")]);
    assert_eq!(world.accounts.lookup(b"app").secrets().len(), 1);
    world.log_in("app", "right").await.unwrap();
    assert_eq!(world.logins(), 1);
    assert_eq!(
        world.log_in("other", "x").await.unwrap_err(),
        Refusal::AccessDenied
    );
    assert!(world.accounts.lookup(b"other").secrets().is_empty());
    // A reload does not make a proved secret stale.
    world
        .accounts
        .reload(AuthSettings::default(), &users(&[("app", "right")]));
    world.log_in("app", "right").await.unwrap();
    assert_eq!(world.logins(), 2);
}

#[tokio::test(start_paused = true)]
async fn users_come_from_the_settings_and_old_passwords_have_a_minute_of_grace() {
    let world = world(AuthMode::Users, &[("app", "one"), ("gone", "x")]);
    let one = world.log_in("app", "one").await.unwrap();
    world.log_in("gone", "x").await.unwrap();
    for (user, password) in [("app", "right"), ("nobody", "one")] {
        let refused = world.log_in(user, password).await.unwrap_err();
        assert_eq!(refused, Refusal::AccessDenied);
    }
    let settings = AuthSettings {
        mode: AuthMode::Users,
        ..AuthSettings::default()
    };
    world.accounts.reload(settings, &users(&[("app", "two")]));
    let two = world.log_in("app", "two").await.unwrap();
    assert_eq!(two.account.id(), one.account.id());
    assert_eq!(two.account.login_secret().unwrap().secret.expose(), b"two");
    // The settings decide, whatever the database says of it.
    two.account.denied(&secret("two"));
    two.account.confirmed(&secret("one"));
    world.log_in("app", "one").await.unwrap();
    assert_eq!(
        world.log_in("gone", "x").await.unwrap_err(),
        Refusal::AccessDenied
    );
    assert_eq!(world.database.revoked.lock().len(), 1);
    tokio::time::advance(GRACE).await;
    assert_eq!(
        world.log_in("app", "one").await.unwrap_err(),
        Refusal::AccessDenied
    );
    world.log_in("app", "two").await.unwrap();
    assert_eq!(world.logins(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_zero_recheck_asks_every_time() {
    let world = world(AuthMode::Passthrough, &[]);
    let settings = AuthSettings {
        recheck: Duration::ZERO,
        ..AuthSettings::default()
    };
    world.accounts.reload(settings, &BTreeMap::new());
    for expected in 1..=3 {
        world.log_in("app", "right").await.unwrap();
        assert_eq!(world.logins(), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_failed_exchange_is_denied_without_the_database() {
    let world = world(AuthMode::Passthrough, &[]);
    let verdict = Verdict::Failed(AuthFailure::Malformed);
    let candidates = world.accounts.lookup(b"app");
    let decided = world.accounts.decide(b"app", &candidates, &verdict).await;
    assert_eq!(decided.unwrap_err(), Refusal::AccessDenied);
    assert_eq!(world.logins(), 0);
}
