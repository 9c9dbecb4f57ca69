//! What counts when flag, file and default disagree, and what is said when one of them is wrong. What the environment
//! says is tested on the built program, whose environment a test may choose.

use clap::CommandFactory;
use tensor::Isa;

use super::*;

#[derive(clap::Parser)]
#[command(name = "tidegate")]
struct Everything {
    #[arg(long)]
    config: Option<PathBuf>,
    #[command(flatten)]
    settings: Settings,
}

/// A configuration file that is removed when the test ends.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        std::fs::remove_file(&self.0).ok();
    }
}

fn layered(name: &str, file: &str, flags: &[&str]) -> Result<Layers, SettingsError> {
    let file = TempFile::new(name, file);
    let mut arguments = vec!["tidegate".into(), "--config".into(), file.0.clone().into_os_string()];
    arguments.extend(flags.iter().map(Into::into));
    layer(&Everything::command(), arguments)
}

#[test]
fn flag_over_file_over_default() {
    let check = |name: &str, file: &str, flags: &[&str], port: u16, origin: &str| {
        let layers = layered(name, file, flags).unwrap();
        let settings = Settings::from_arg_matches(layers.matches()).unwrap();
        assert_eq!(settings.server.port, port, "{name}");
        let setting = layers.settings().into_iter().find(|setting| setting.key.id == "port").unwrap();
        assert_eq!(setting.values, [port.to_string()], "{name}");
        assert!(setting.origin.to_string().ends_with(origin), "{name}: {}", setting.origin);
    };
    check("nothing", "", &[], 8080, "default");
    check("file", "[server]\nport = 9000", &[], 9000, ".toml: server.port");
    check("text", "[server]\nport = '9000'", &[], 9000, ".toml: server.port");
    check("flag", "[server]\nport = 9000", &["--port", "9001"], 9001, "--port");
    check("same-as-default", "[server]\nport = 8080", &[], 8080, ".toml: server.port");
}

#[test]
fn file_sets_every_kind_of_value() {
    let text = "
        [model]
        path = 'models/x'
        dtype = 'bf16'
        [compute]
        threads = 3
        isa = 'scalar'
        [memory]
        kv = '1.5GiB'
        [queue]
        policy = 'fair_share'
        age_step = '200ms'
        weights = ['alice=4', 'bob=2']
        [server]
        api_key = ['a', 'b']
        shutdown_timeout = 0.5
        [log]
        format = 'json'
    ";
    let layers = layered("kinds", text, &["--context", "7"]).unwrap();
    let settings = Settings::from_arg_matches(layers.matches()).unwrap();
    let inference = settings.inference;
    assert_eq!(inference.model.model, [ModelChoice::from(PathBuf::from("models/x"))]);
    assert_eq!(inference.model.dtype, Some(Precision::Bf16));
    assert_eq!(inference.model.context, Some(7));
    assert_eq!(inference.compute.threads, NonZeroUsize::new(3));
    assert_eq!(inference.compute.isa, Some(Isa::Scalar));
    assert_eq!(inference.memory.kv_memory, Some(ByteSize(3 << 29)));
    let policy = inference.queue.policy();
    assert_eq!((policy.discipline.name, policy.age_step.as_millis()), ("fair_share", 200));
    assert_eq!(format!("{:?}", policy.weights), r#"{"alice": 4, "bob": 2}"#);
    assert_eq!(settings.server.api_key, ["a".into(), "b".into()]);
    assert_eq!(settings.server.shutdown_timeout.to_string(), "500ms");
    assert_eq!(settings.log.log_format, Some(LogFormat::Json));
}

#[test]
fn wrong_files() {
    let check = |name: &str, file: &str, expected: &str| {
        let found = layered(name, file, &[]).unwrap_err().to_string();
        assert!(found.contains(expected), "{name}: expected …{expected}…, found {found}");
    };
    check("typo", "[queue]\nmaxx = 1", "'queue.maxx' is not a setting; did you mean 'queue.max'?");
    check("flat", "max_queue = 1", "'max_queue' is not a setting; did you mean 'queue.max'?");
    check("short", "a = 1", "'a' is not a setting; `tidegate config show`");
    check("dashes", "[queue]\nmax-tokens = 1", "'queue.max-tokens' is not a setting");
    check("section", "[sever]\nport = 1", "'sever' is not a setting");
    check("far", "[queue]\nbananas = 1", "'queue.bananas' is not a setting; `tidegate config show`");
    check("range", "[server]\nport = 99999", ".toml: server.port: invalid value '99999'");
    check("choice", "[model]\ndtype = 'int3'", "possible values: f32, bf16");
    check("size", "[memory]\nkv = 'much'", "memory.kv: invalid value 'much'");
    check("size-help", "[memory]\nkv = 'much'", "as in 512MiB or 2GiB");
    check("zero", "[batch]\ntokens = 0", "batch.tokens: invalid value '0'");
    check(
        "policy",
        "[queue]\npolicy = 'lifo'",
        "there is no queue policy 'lifo'; choose one of fifo, priority, round_robin, fair_share, deadline",
    );
    check("share", "[queue]\nweights = 'alice'", "queue.weights: invalid value 'alice'");
    check("boolean", "[queue]\nmax = true", "queue.max: expected a text or a number, found a boolean");
    check("list", "[server]\nport = [1, 2]", "server.port: expected a text or a number, found an array");
    check("syntax", "[queue\nmax = 1", "is not valid TOML");
}

#[test]
fn file_that_does_not_exist() {
    let error = Settings::load(Some(Path::new("/nowhere/tidegate.toml"))).unwrap_err().to_string();
    assert!(error.starts_with("cannot read the configuration file /nowhere/tidegate.toml: "), "{error}");
}

#[test]
fn table_and_arguments_agree() {
    let command = Everything::command();
    // What belongs to a single call has no variable and no place in the file.
    let of_a_call = |arg: &clap::Arg| ["config", "no_cache"].contains(&arg.get_id().as_str());
    let arguments: Vec<_> = command.get_arguments().filter(|arg| !of_a_call(arg)).collect();
    assert_eq!(arguments.len(), KEYS.len());
    for key in KEYS {
        let arg = arguments.iter().find(|arg| arg.get_id() == key.id).expect(key.id);
        assert_eq!(arg.get_long().map(|long| format!("--{long}")), Some(key.flag()));
        assert_eq!(arg.get_env().and_then(|name| name.to_str()), Some(key.variable().as_str()));
        assert_eq!(key.unset.is_empty(), !arg.get_default_values().is_empty(), "{}", key.id);
    }
}

#[test]
fn keys_are_not_printed() {
    let server = ServerSettings { api_key: vec!["sesame".into()], ..ServerSettings::default() };
    assert!(!format!("{server:?}").contains("sesame"));
}
