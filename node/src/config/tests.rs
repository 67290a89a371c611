//! Each rule of the configuration, row by row.

use super::{flags::Kind, *};

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn no_file(path: &str) -> std::io::Result<String> {
    panic!("{path} was read")
}

fn serve_in(
    program: &str,
    arguments: &str,
    environment: &[(&str, &str)],
) -> Result<Config, ConfigError> {
    let environment: Vec<_> =
        environment.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    match read_as(program, &words(arguments), &environment, no_file)? {
        Invocation::Serve(config) => Ok(*config),
        other => panic!("{arguments} gave {other:?}"),
    }
}

fn serve(arguments: &str) -> Result<Config, ConfigError> {
    serve_in("quorate", arguments, &[])
}

fn from_file(content: &str) -> Result<Config, ConfigError> {
    match read_as("quorate", &words("--config-file=x.yaml"), &[], |_| Ok(content.to_owned()))? {
        Invocation::Serve(config) => Ok(*config),
        other => panic!("{other:?}"),
    }
}

#[test]
fn no_argument_is_a_single_member_store_on_etcds_ports() {
    let config = serve("").unwrap();
    assert_eq!(config.listen_client_urls[0].bind_address().unwrap().to_string(), "127.0.0.1:2379");
    assert_eq!(config.listen_peer_urls[0].bind_address().unwrap().to_string(), "127.0.0.1:2380");
    assert_eq!(config.data_dir, PathBuf::from("default.quorate"));
    assert_eq!(config.quota_bytes, Some(2 << 30));
    assert_eq!(config.request_timeout(), Duration::from_secs(7));
    assert_eq!((config.max_txn_ops, config.max_request_bytes), (128, 1_572_864));
    assert_eq!(config.auto_compaction, None);
    let Start::New(cluster) = &config.start else { panic!("{:?}", config.start) };
    assert_eq!(cluster.to_string(), "default=http://localhost:2380");
    config.verify_start().unwrap();
    assert!(config.warnings.iter().any(|warning| warning.contains("default name")));
    assert_eq!(config.warnings.len(), 1, "{:?}", config.warnings);
}

#[test]
fn the_data_directory_follows_the_programs_name() {
    let directory =
        |program: &str, arguments: &str| serve_in(program, arguments, &[]).unwrap().data_dir;
    assert_eq!(directory("etcd", ""), PathBuf::from("default.etcd"));
    assert_eq!(directory("etcd", "--name=a"), PathBuf::from("a.etcd"));
    assert_eq!(directory("quorate", "--name a"), PathBuf::from("a.quorate"));
    assert_eq!(directory("etcd", "--name a -data-dir /x"), PathBuf::from("/x"));
}

#[test]
fn only_a_name_makes_a_cluster_of_one_under_that_name() {
    let config = serve("--name infra1 --initial-advertise-peer-urls=http://10.0.0.1:2380").unwrap();
    let Start::New(cluster) = &config.start else { panic!("{:?}", config.start) };
    assert_eq!(cluster.to_string(), "infra1=http://10.0.0.1:2380");
    config.verify_start().unwrap();
}

#[test]
fn version_and_help_are_printed() {
    let print =
        |program: &str, arguments: &str| match read_as(program, &words(arguments), &[], no_file) {
            Ok(Invocation::Print(text)) => text,
            other => panic!("{other:?}"),
        };
    assert!(print("etcd", "--version").starts_with("etcd Version: 3.7."));
    assert!(print("quorate", "--version").starts_with("quorate Version: 0."));
    assert!(print("quorate", "--help").contains("--listen-client-urls"));
}

/// Each refusal: what was given, and what the message must say.
#[test]
fn what_is_refused_is_refused_by_name() {
    for (arguments, part) in [
        ("--cert-file=/x", "--cert-file=/x is refused: TLS is not served yet"),
        ("--client-cert-auth", "--client-cert-auth=true is refused"),
        ("--peer-auto-tls=true", "--peer-auto-tls=true is refused"),
        ("--tls-min-version=TLS1.3", "--tls-min-version=TLS1.3 is refused"),
        (
            "--discovery-srv=example.com",
            "--discovery-srv=example.com is refused: discovery is not served yet",
        ),
        ("--auth-token=jwt,pub-key=x", "--auth-token=jwt,pub-key=x is refused"),
        ("--corrupt-check-time=1m", "--corrupt-check-time=1m is refused"),
        ("--force-new-cluster", "--force-new-cluster=true is refused"),
        ("--enable-pprof", "--enable-pprof=true is refused"),
        ("--cors=http://a", "--cors=http://a is refused"),
        ("--host-whitelist=a", "--host-whitelist=a is refused"),
        (
            "--feature-gates=InitialCorruptCheck=true",
            "feature gate InitialCorruptCheck=true is refused",
        ),
        ("--experimental-initial-corrupt-check=true", "not served yet; leave the flag out"),
        (
            "--listen-client-urls=https://1.2.3.4:1 --advertise-client-urls=http://a:1",
            "https is not served yet",
        ),
        (
            "--listen-client-urls=unix://a:1 --advertise-client-urls=http://a:1",
            "unix sockets are not served yet",
        ),
    ] {
        let error = serve(arguments).expect_err(arguments).to_string();
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

/// Each rule of etcd's validation, with its text.
#[test]
fn what_etcd_refuses_is_refused_in_its_words() {
    for (arguments, part) in [
        ("--nosuch=1", "flag provided but not defined: --nosuch"),
        ("stray", "\"stray\" is not a valid flag"),
        ("--", "\"--\" is not a valid flag"),
        ("--name", "flag needs an argument: --name"),
        ("--pre-vote=maybe", "invalid value for --pre-vote"),
        ("--max-txn-ops=many", "invalid value for --max-txn-ops"),
        ("--max-txn-ops=-1", "out of range"),
        ("--grpc-keepalive-timeout=5", "invalid value for --grpc-keepalive-timeout"),
        ("--heartbeat-interval=0", "--heartbeat-interval must be >0"),
        ("--election-timeout=0", "--election-timeout must be >0"),
        (
            "--heartbeat-interval=300",
            "--election-timeout[1000ms] should be at least as 5 times as --heartbeat-interval[300ms]",
        ),
        ("--election-timeout=60000", "--election-timeout[60000ms] is too long"),
        (
            "--listen-client-urls=http://127.0.0.1:1",
            "--advertise-client-urls is required when --listen-client-urls is set explicitly",
        ),
        ("--listen-peer-urls=http://example.com:1", "expected IP in URL for binding"),
        ("--initial-advertise-peer-urls=http://:1", "unexpected empty host"),
        ("--initial-cluster-state=old", "unexpected clusterState \"old\""),
        ("--initial-cluster=a", "error setting up initial cluster"),
        ("--auto-compaction-mode=never", "unknown auto-compaction-mode \"never\""),
        (
            "--auto-compaction-mode=revision --auto-compaction-retention=1h",
            "must be a number of revisions",
        ),
        ("--log-level=loud", "unrecognized level"),
        ("--log-format=xml", "unknown log-format"),
        ("--log-outputs=/var/log/x", "only one of stderr and stdout is served"),
        ("--metrics=some", "neither basic nor extensive"),
        ("--feature-gates=NoSuch=true", "unrecognized feature gate: NoSuch"),
        ("--feature-gates=LeaseCheckpoint", "missing bool value for feature gate LeaseCheckpoint"),
    ] {
        let error = serve(arguments).expect_err(arguments).to_string();
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn what_changes_nothing_is_accepted_with_a_warning() {
    for (arguments, part) in [
        ("--snapshot-count=10000", "--snapshot-count has its default value"),
        ("--snapshot-count=100", "--snapshot-count changes nothing"),
        ("--unsafe-no-fsync", "every acknowledged write is synced, always"),
        ("--pre-vote=false", "the pre-vote is always on"),
        ("--backend-bbolt-freelist-type=array", "there is no bbolt here"),
        ("--auth-token=simple", "--auth-token has its default value"),
        (
            "--client-cert-auth=false",
            "--client-cert-auth has its default value; another would be refused",
        ),
        (
            "--feature-gates=LeaseCheckpoint=true",
            "feature gate LeaseCheckpoint=true changes nothing",
        ),
        (
            "--experimental-watch-progress-notify-interval=5s",
            "is read as --watch-progress-notify-interval",
        ),
        ("--quota-backend-bytes=9663676416", "above the suggested maximum of 8 GiB"),
        ("--max-request-bytes=20000000", "above the suggested maximum of 10 MiB"),
        ("-v", "etcd itself has ignored it"),
    ] {
        let config = serve(arguments).expect(arguments);
        assert!(
            config.warnings.iter().any(|warning| warning.contains(part)),
            "{arguments}: {:?}",
            config.warnings
        );
    }
    assert_eq!(
        serve("--experimental-watch-progress-notify-interval=5s")
            .unwrap()
            .watch_progress_notify_interval,
        Duration::from_secs(5)
    );
}

#[test]
fn every_name_is_served_accepted_or_refused_whatever_its_kind() {
    for flag in flags::FLAGS.iter().filter(|flag| !matches!(flag.name, "config-file" | "version")) {
        let value = match flag.kind {
            Kind::Text | Kind::List => "other",
            Kind::Bool if flag.default == "true" => "false",
            Kind::Bool => "true",
            Kind::Integer => "7",
            Kind::Duration => "77s",
        };
        let outcome = serve(&format!("--{}={value}", flag.name));
        match flag.fate {
            // A served flag may find the value wrong, but must know why.
            Fate::Served => {}
            Fate::AcceptedWithWarning(why) => {
                let config = outcome.unwrap_or_else(|error| panic!("--{}: {error}", flag.name));
                assert!(
                    config.warnings.iter().any(|warning| warning.contains(why)),
                    "--{}",
                    flag.name
                );
            }
            Fate::Refused(why) => {
                let error = outcome.expect_err(flag.name).to_string();
                assert!(
                    error.contains(flag.name) && error.contains(why),
                    "--{}: {error}",
                    flag.name
                );
            }
        }
    }
}

#[test]
fn the_command_line_wins_over_the_environment() {
    let environment =
        [("ETCD_NAME", "from-env"), ("ETCD_MAX_TXN_OPS", "64"), ("ETCD_NAMED", "x"), ("HOME", "/")];
    let config = serve_in("quorate", "--name from-flag", &environment).unwrap();
    assert_eq!((config.name.as_str(), config.max_txn_ops), ("from-flag", 64));
    assert!(config.warnings.iter().any(|warning| warning.contains("ETCD_NAME is left aside")));
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.contains("ETCD_NAMED in the environment is no setting"))
    );
    assert_eq!(serve_in("quorate", "", &environment).unwrap().name, "from-env");
    let error = serve_in("quorate", "", &[("ETCD_MAX_TXN_OPS", "many")]).unwrap_err().to_string();
    assert!(error.contains("ETCD_MAX_TXN_OPS"), "{error}");
}

#[test]
fn a_file_stands_alone() {
    let content = "name: from-file\nlog-outputs: [stdout]\nwatch-progress-notify-interval: 5s\n\
        compact-hash-check-time: 60000000000\nsocket-options:\n  reuse-port: true\n\
        listen-client-urls: http://127.0.0.1:1\nadvertise-client-urls: http://a:1\nmax-txn-ops: 9\n";
    let arguments = words("--name from-flag --config-file=x.yaml");
    let Ok(Invocation::Serve(config)) =
        read_as("quorate", &arguments, &[], |_| Ok(content.to_owned()))
    else {
        panic!("not served")
    };
    assert_eq!((config.name.as_str(), config.max_txn_ops), ("from-file", 9));
    assert_eq!(config.log_output, LogOutput::Stdout);
    assert_eq!(config.watch_progress_notify_interval, Duration::from_secs(5));
    assert!(config.reuse_port);
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.contains("1 flags or environment variables are ignored"))
    );
    assert!(
        config
            .warnings
            .iter()
            .any(|warning| warning.contains("compact-hash-check-time in x.yaml has its default"))
    );
}

#[test]
fn a_files_mistakes_are_named() {
    for (content, part) in [
        ("name: [a", "x.yaml is not YAML"),
        ("- a", "must hold a mapping"),
        ("nmae: a", "nmae in x.yaml: no such setting"),
        ("name: {a: b}", "name in x.yaml: the value has the wrong shape"),
        ("peer-transport-security: {cert-file: /x}", "cert-file in x.yaml=/x is refused"),
        (
            "client-transport-security: {client-cert-auth: true}",
            "client-cert-auth in x.yaml=true is refused",
        ),
        ("peer-transport-security: 5", "invalid peer-transport-security"),
    ] {
        let error = from_file(content).expect_err(content).to_string();
        assert!(error.contains(part), "{content}: {error}");
    }
    assert!(from_file("").is_ok());
    assert!(from_file("peer-transport-security:\n").is_ok());
    let missing = read_as("quorate", &words("--config-file=gone"), &[], |_| {
        Err(std::io::Error::from(std::io::ErrorKind::NotFound))
    });
    assert!(missing.unwrap_err().to_string().contains("--config-file gone cannot be read"));
}

#[test]
fn a_joiner_is_told_a_cluster_and_where_to_ask() {
    let config =
        serve("--join-cluster-id=cdf818194e3a8c32 --join-peers=http://demo-peers:2380").unwrap();
    let Start::Join { cluster_id, peers } = &config.start else { panic!("{:?}", config.start) };
    assert_eq!(*cluster_id, 0xcdf8_1819_4e3a_8c32);
    assert_eq!(peers[0].to_string(), "http://demo-peers:2380");
    config.verify_start().unwrap();
    for (arguments, part) in [
        ("--join-cluster-id=zz --join-peers=http://a:1", "must be the cluster's id in hexadecimal"),
        ("--join-peers=http://a:1", "must be the cluster's id in hexadecimal"),
        ("--join-cluster-id=1", "needs --join-peers"),
        ("--join-cluster-id=1 --join-peers=a:1", "invalid value for --join-peers"),
        (
            "--join-cluster-id=1 --join-peers=http://a:1 --initial-cluster=a=http://b:1",
            "contradict each other",
        ),
        (
            "--join-cluster-id=1 --join-peers=http://a:1 --initial-cluster-state=new",
            "contradict each other",
        ),
    ] {
        let error = serve(arguments).expect_err(arguments).to_string();
        assert!(error.contains(part), "{arguments}: {error}");
    }
}

#[test]
fn history_is_kept_as_told() {
    let kept = |arguments: &str| serve(arguments).unwrap().auto_compaction;
    let hours = |hours: u64| Some(AutoCompaction::Periodic(Duration::from_secs(hours * 3600)));
    assert_eq!(kept("--auto-compaction-retention=1"), hours(1));
    assert_eq!(kept("--auto-compaction-retention=2h"), hours(2));
    assert_eq!(kept("--auto-compaction-retention=0s"), None);
    assert_eq!(
        kept("--auto-compaction-mode=revision --auto-compaction-retention=1000"),
        Some(AutoCompaction::Revision(1000))
    );
    assert_eq!(kept("--auto-compaction-mode=revision"), None);
}

#[test]
fn a_negative_quota_switches_it_off() {
    assert_eq!(serve("--quota-backend-bytes=-1").unwrap().quota_bytes, None);
    assert_eq!(serve("--quota-backend-bytes=1000").unwrap().quota_bytes, Some(1000));
}

#[test]
fn prepare_form_wants_all_of_its_flags() {
    let all = "prepare form --token=T --name n-0 --data-dir=/d --peer-url=http://n-0.p:2380 --client-url http://n-0.c:2379";
    let Ok(Invocation::PrepareForm(form)) = read_as("quorate", &words(all), &[], no_file) else {
        panic!("not read")
    };
    assert_eq!((form.token.as_str(), form.name.as_str()), ("T", "n-0"));
    assert_eq!(form.peer_urls[0].to_string(), "http://n-0.p:2380");
    for (arguments, part) in [
        ("prepare", "say what to prepare"),
        ("prepare restore", "only form is known"),
        ("prepare form --token=T", "--name is missing"),
        ("prepare form --token=", "--token needs a value"),
        ("prepare form --nosuch=1", "is not a valid flag"),
        (
            "prepare form --token=T --name=n --data-dir=/d --peer-url=x --client-url=http://a:1",
            "--peer-url",
        ),
    ] {
        let error =
            read_as("quorate", &words(arguments), &[], no_file).expect_err(arguments).to_string();
        assert!(error.contains(part), "{arguments}: {error}");
    }
}
