use std::error::Error;

use clap::Parser;

use super::*;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    flags: Flags,
}

fn flags(args: &[&str]) -> Flags {
    Line::parse_from([&["test"], args].concat()).flags
}

#[test]
fn a_mode_is_one_of_two_words_in_the_file_and_as_a_flag() {
    let in_file = load_text("[s3]\nchecksums = 'required'\n[sandbox]\nlaunch = 'process'\n", &[]);
    let as_flags = load_text("", &["--s3-checksums", "required", "--launch", "process"]);
    for config in [in_file.unwrap(), as_flags.unwrap()] {
        assert_eq!(config.s3.checksums, ChecksumMode::Required);
        assert_eq!(config.sandbox.launch, LaunchMode::Process);
    }
    assert!(load_text("[s3]\nchecksums = 'none'\n", &[]).is_err());
    let refused = word::<LaunchMode>("fork").unwrap_err().to_string();
    assert!(refused.contains("`zygote`") && refused.contains("`process`"), "{refused}");
}

fn load_text(text: &str, args: &[&str]) -> Result<Config, String> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("c.toml");
    std::fs::write(&path, text).unwrap();
    load(flags(args), Some(&path)).map_err(|error| {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        format!("{error}: {cause}")
    })
}

#[test]
fn flags_win_over_the_file_and_the_file_over_defaults() {
    let text = "[api]\nlisten = '127.0.0.1:1'\n[gateway]\nlisten = '127.0.0.1:2'\n\
                [limits]\nqueue_length = 7\n";
    let config = load_text(text, &["--api-listen", "127.0.0.1:3"]).unwrap();
    assert_eq!(config.api.listen.port(), 3);
    assert_eq!(config.gateway.listen.port(), 2);
    assert_eq!(config.limits.queue_length, 7);
    assert_eq!(config.limits.queue_wait_ms, PlatformLimits::default().queue_wait_ms);
    assert_eq!(config.log.format, LogFormat::Text);
    assert_eq!(config.ops.listen, None);
    let config = load_text("[ops]\nlisten = '127.0.0.1:4'\n", &[]).unwrap();
    assert_eq!(config.ops.listen.unwrap().port(), 4);
}

#[test]
fn errors_name_the_key() {
    for (text, key) in [
        ("[api]\nlitsen = 'x'", "litsen"),
        ("[api]\nlisten = 'x'", "listen"),
        ("[limits]\nqueue_lenght = 1", "queue_lenght"),
        ("[typo]", "typo"),
        ("[sandbox]\negress_allow = ['localhost']", "egress_allow"),
        ("[sandbox]\nrequire_jail = 'most'", "require_jail"),
        ("[sandbox]\nurls = ['https://a']", "urls"),
    ] {
        let message = load_text(text, &[]).unwrap_err();
        assert!(message.contains(key), "{text}: {message}");
    }
}

#[test]
fn addresses_are_opened_in_the_file_or_by_flag() {
    let config = load_text("[sandbox]\negress_allow = ['10.0.0.0/8:5432']", &[]).unwrap();
    assert_eq!(config.sandbox.egress_allow[0].to_string(), "10.0.0.0/8:5432");
    assert_eq!(config.sandbox.require_jail, RequireJail::None);
    let flags = ["--egress-allow", "127.0.0.1:1,::1", "--require-jail", "full"];
    let config = load_text("", &flags).unwrap();
    assert_eq!(config.sandbox.egress_allow.len(), 2);
    assert_eq!(config.sandbox.require_jail, RequireJail::Full);
    let same: Vec<EgressRule> = comma_separated("127.0.0.1:1, ::1,").unwrap();
    assert_eq!(same, config.sandbox.egress_allow);
}

#[test]
fn what_a_project_says_is_passed_over() {
    let text = "data_dir = 'x'\n[function]\nname = 'hello'\n[function.limits]\nmemoryMb = 64\n";
    assert_eq!(load_text(text, &[]).unwrap().data_dir, Path::new("x"));
}

#[test]
fn a_named_file_must_exist() {
    let error = load(flags(&[]), Some(Path::new("/does/not/exist.toml"))).unwrap_err();
    assert!(error.to_string().contains("/does/not/exist.toml"), "{error}");
}
