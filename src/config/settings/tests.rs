use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::*;
use crate::config::{
    AllowRule, AuthMode, AutoSettings, BackendAddress, ByteSize, ClientOverrides, ClientRule,
    CloseNotice, EffectiveClient, Environment, IdleMode, Keepalive, OnPin, Pattern, PingMode, load,
};

proptest! {
    #[test]
    fn valid_settings_written_as_toml_load_back_equal(settings in settings()) {
        prop_assert_eq!(settings.validate(), Ok(()));
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("sidepool.toml");
        std::fs::write(&file, settings.to_toml()).unwrap();
        let loaded = load(Some(&file), &Environment::default());
        prop_assert_eq!(loaded, Ok(settings), "{}", std::fs::read_to_string(&file).unwrap());
    }
}

fn settings() -> impl Strategy<Value = Settings> {
    let surfaces = (
        option::of(port(4)),
        option::of(port(5)),
        path(),
        option::of(port(6)),
        users(),
    );
    let log = (
        select(&["info", "off", "warn,sidepool::pool=trace"][..]),
        select(LogFormat::ALL),
    );
    (
        server(),
        vec(listener(), 1..4),
        client(),
        backend(),
        pool(),
        auth(),
        surfaces,
        log,
    )
        .prop_map(
            |(server, mut listener, client, backend, pool, auth, surfaces, (level, format))| {
                for (i, listener) in listener.iter_mut().enumerate() {
                    if let ListenAddress::Tcp { port, .. } = &mut listener.address {
                        *port = u16::try_from(i + 1).unwrap();
                    }
                    if let ListenAddress::Unix(path) = &mut listener.address {
                        path.push(i.to_string());
                    }
                }
                let (address, metrics_address, token_file, console, user) = surfaces;
                Settings {
                    server,
                    listener,
                    client,
                    backend,
                    pool,
                    auth,
                    admin: AdminSettings {
                        address,
                        metrics_address,
                        token_file,
                    },
                    console: ConsoleSettings {
                        address: console,
                        user,
                    },
                    log: LogSettings {
                        level: level.parse().unwrap(),
                        format,
                    },
                }
            },
        )
}

fn server() -> impl Strategy<Value = ServerSettings> {
    (0..=1024usize, duration()).prop_map(|(worker_threads, drain_timeout)| ServerSettings {
        worker_threads,
        drain_timeout,
    })
}

fn listener() -> impl Strategy<Value = ListenerSettings> {
    let address = prop_oneof![
        host().prop_map(|host| ListenAddress::tcp(host, 0)),
        "/[ -~é]{1,50}".prop_map(|path| ListenAddress::Unix(path.into())),
    ];
    let tls =
        (select(ClientTlsMode::ALL), option::of((name(), name()))).prop_map(|(mode, files)| {
            let (certificate, private_key) = files.map(|(c, k)| (c.into(), k.into())).unzip();
            ListenerTls {
                mode,
                certificate,
                private_key,
            }
        });
    (
        address,
        select(Role::ALL),
        1..=10_000_000usize,
        vec(cidr(), 0..3),
        tls,
    )
        .prop_map(
            |(address, role, max_clients, proxy_protocol_from, tls)| ListenerSettings {
                address,
                role,
                max_clients,
                proxy_protocol_from,
                tls,
            },
        )
}

fn client() -> impl Strategy<Value = ClientSettings> {
    let keepalive = prop_oneof![
        Just(Keepalive::Off),
        (1..=32767u64).prop_map(|s| Keepalive::After(Duration::from_secs(s))),
    ];
    let auto = (0..=1_000_000u32, any::<u64>()).prop_map(|(target_per_day, memory)| AutoSettings {
        target_per_day,
        memory: ByteSize(memory),
    });
    let rest = (keepalive, duration(), 0..=1_000_000usize, auto);
    (positive(), base(), rest, vec(rule(), 0..4)).prop_map(
        |(handshake_timeout, base, rest, rule)| {
            let (keepalive, stale_watch, stale_watch_sockets, auto) = rest;
            ClientSettings {
                handshake_timeout,
                base,
                keepalive,
                stale_watch,
                stale_watch_sockets,
                auto,
                rule,
            }
        },
    )
}

fn base() -> impl Strategy<Value = EffectiveClient> {
    let words = (
        select(IdleMode::ALL),
        select(CloseNotice::ALL),
        select(PingMode::ALL),
        any::<bool>(),
        select(OnPin::ALL),
        any::<bool>(),
    );
    ([duration(), duration(), duration(), duration()], words).prop_map(|(durations, words)| {
        let [
            idle_timeout,
            idle_transaction_timeout,
            pinned_idle_timeout,
            max_lifetime,
        ] = durations;
        let (idle_mode, close_notice, ping, ping_is_activity, on_pin, trust_routines) = words;
        EffectiveClient {
            idle_timeout,
            idle_transaction_timeout,
            pinned_idle_timeout,
            max_lifetime,
            idle_mode,
            close_notice,
            ping,
            ping_is_activity,
            on_pin,
            trust_routines,
        }
    })
}

fn rule() -> impl Strategy<Value = ClientRule> {
    let conditions = (
        option::of(pattern()),
        option::of(pattern()),
        option::of(pattern()),
        option::of(cidr()),
    );
    (conditions, base(), any::<[bool; 10]>()).prop_map(
        |((user, database, program_name, source), all, set)| {
            let overrides = ClientOverrides {
                idle_timeout: set[0].then_some(all.idle_timeout),
                idle_transaction_timeout: set[1].then_some(all.idle_transaction_timeout),
                pinned_idle_timeout: set[2].then_some(all.pinned_idle_timeout),
                max_lifetime: set[3].then_some(all.max_lifetime),
                idle_mode: set[4].then_some(all.idle_mode),
                close_notice: set[5].then_some(all.close_notice),
                ping: set[6].then_some(all.ping),
                ping_is_activity: set[7].then_some(all.ping_is_activity),
                on_pin: set[8].then_some(all.on_pin),
                trust_routines: set[9].then_some(all.trust_routines),
            };
            ClientRule {
                user,
                database,
                program_name,
                source,
                overrides,
            }
        },
    )
}

fn backend() -> impl Strategy<Value = BackendSettings> {
    let addresses = vec(host(), 1..4).prop_map(|hosts| {
        let addresses = hosts.into_iter().enumerate();
        addresses
            .map(|(i, host)| BackendAddress::tcp(host, u16::try_from(i).unwrap()))
            .collect()
    });
    let tls = (select(BackendTlsMode::ALL), path()).prop_map(|(mode, ca)| BackendTls { mode, ca });
    (
        addresses,
        name(),
        path(),
        [positive(), positive()],
        1..=1000usize,
        any::<bool>(),
        tls,
    )
        .prop_map(
            |(
                addresses,
                monitor_user,
                monitor_password_file,
                durations,
                max_dials,
                retrieval,
                tls,
            )| {
                BackendSettings {
                    addresses,
                    monitor_user: Some(monitor_user),
                    monitor_password_file,
                    connect_timeout: durations[0],
                    max_dials,
                    probe_interval: durations[1],
                    allow_public_key_retrieval: retrieval,
                    tls,
                }
            },
        )
}

fn pool() -> impl Strategy<Value = PoolSettings> {
    let limits = (0..=100_000usize, 1..=100u8, 0..=100u8, 0..=100_000usize);
    let borrow = (0..=3600u64).prop_map(Duration::from_secs);
    let filters = vec(select(PinReason::ALL), 0..4);
    (
        limits,
        duration(),
        duration(),
        borrow,
        option::of(name()),
        filters,
    )
        .prop_map(
            |(limits, idle_timeout, max_lifetime, borrow_timeout, init_query, pinning_filters)| {
                let (max_connections, max_connections_percent, max_idle_percent, min_idle) = limits;
                let most = if max_connections == 0 {
                    min_idle
                } else {
                    max_connections
                };
                PoolSettings {
                    max_connections,
                    max_connections_percent,
                    max_idle_percent,
                    min_idle: min_idle.min(most),
                    idle_timeout,
                    max_lifetime,
                    borrow_timeout,
                    init_query,
                    pinning_filters,
                }
            },
        )
}

fn auth() -> impl Strategy<Value = AuthSettings> {
    let allow =
        (pattern(), option::of(cidr()), any::<bool>()).prop_map(|(user, source, require_tls)| {
            AllowRule {
                user,
                source,
                require_tls,
            }
        });
    (select(AuthMode::ALL), duration(), vec(allow, 0..3), users()).prop_map(
        |(mode, recheck, allow, user)| {
            let mode = if user.is_empty() {
                AuthMode::Passthrough
            } else {
                mode
            };
            AuthSettings {
                mode,
                recheck,
                allow,
                user,
            }
        },
    )
}

fn users() -> impl Strategy<Value = Vec<UserSettings>> {
    vec((name(), name(), any::<bool>()), 0..3).prop_map(|users| {
        let users = users.into_iter().enumerate();
        let user = |(i, (name, password, in_file)): (usize, (String, String, bool))| UserSettings {
            name: format!("{name}{i}"),
            password_file: in_file.then(|| password.clone().into()),
            password_env: (!in_file).then_some(password),
        };
        users.map(user).collect()
    })
}

fn port(port: u16) -> impl Strategy<Value = ListenAddress> {
    host().prop_map(move |host| ListenAddress::tcp(host, port))
}

fn host() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-zA-Z0-9._-]{1,20}",
        any::<std::net::IpAddr>().prop_map(|ip| ip.to_string())
    ]
}

/// Any text but none at all, which would mean unset.
fn name() -> impl Strategy<Value = String> {
    any::<String>().prop_filter("set", |text| !text.is_empty())
}

fn path() -> impl Strategy<Value = Option<PathBuf>> {
    option::of(name().prop_map(PathBuf::from))
}

fn pattern() -> impl Strategy<Value = Pattern> {
    any::<String>().prop_filter_map("no backslash at the end", |text| text.parse().ok())
}

fn cidr() -> impl Strategy<Value = IpNet> {
    (any::<std::net::IpAddr>(), 0..=32u8).prop_map(|(ip, prefix)| IpNet::new(ip, prefix).unwrap())
}

fn duration() -> impl Strategy<Value = Duration> {
    const TEN_YEARS: u64 = 3650 * 24 * 60 * 60;
    prop_oneof![
        (0..=TEN_YEARS).prop_map(Duration::from_secs),
        (0..=TEN_YEARS * 1000).prop_map(Duration::from_millis),
        (0..=TEN_YEARS * 1_000_000_000).prop_map(Duration::from_nanos),
        Just(Duration::ZERO),
    ]
}

fn positive() -> impl Strategy<Value = Duration> {
    duration().prop_filter("not zero", |duration| !duration.is_zero())
}
