//! The one place where configuration is read: flag, then `TIDEGATE_*` variable, then file, then default.
//!
//! Every setting is one field with its flag, its variable and its default beside it, and one line in [`KEYS`] that says
//! where it stands in the configuration file. What belongs to a single call, such as a prompt or a temperature, is an
//! argument of its verb and not a setting.

mod file;
mod layers;
mod units;

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches, ValueEnum, ValueHint};
use flow::queue::policy::{Discipline, PolicySettings};
use models::Quantisation;
use tensor::{Dtype, Isa};

pub use file::ConfigFile;
pub use layers::{Key, Layers, Origin, Setting, layer};
pub use units::{ByteSize, TenantWeight, TimeSpan};

/// Everything that can be set.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What runs, and how much of the machine it may use.
    #[command(flatten)]
    pub inference: InferenceSettings,
    /// Where and to whom it is served.
    #[command(flatten)]
    pub server: ServerSettings,
    /// What is logged.
    #[command(flatten)]
    pub log: LogSettings,
}

/// What runs, and how much of the machine it may use.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct InferenceSettings {
    /// Which model.
    #[command(flatten)]
    pub model: ModelSettings,
    /// Which processors and instructions.
    #[command(flatten)]
    pub compute: ComputeSettings,
    /// How much runs at once.
    #[command(flatten)]
    pub batch: BatchSettings,
    /// How much waits.
    #[command(flatten)]
    pub queue: QueueSettings,
    /// How much memory is taken.
    #[command(flatten)]
    pub memory: MemorySettings,
}

/// Which model.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Model")]
pub struct ModelSettings {
    /// Hugging Face folder or GGUF file of a model; without it, the embedded model runs.
    #[arg(long, env = "TIDEGATE_MODEL", value_name = "PATH", value_hint = ValueHint::AnyPath)]
    pub model: Option<PathBuf>,
    /// Name under which requests ask for the model; without it, the name of its folder or file.
    #[arg(long, env = "TIDEGATE_MODEL_NAME", value_name = "NAME")]
    pub model_name: Option<String>,
    /// Type of the weights; without it, what the checkpoint says. Activations, keys and values are f32 with f32, and bf16
    /// with all others. With int8 and int4, weights are quantised as they are loaded.
    #[arg(long, env = "TIDEGATE_DTYPE", value_name = "DTYPE")]
    pub dtype: Option<Precision>,
    /// Most tokens of prompt and output together; without it, what the model and the memory allow.
    #[arg(long, env = "TIDEGATE_CONTEXT", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
}

/// Which processors and instructions.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Compute")]
pub struct ComputeSettings {
    /// Compute threads; without it, one per processor that the system grants.
    #[arg(long, env = "TIDEGATE_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Instruction set: scalar, avx2, avx512, avx512bf16 or amx; without it, the fastest that runs here.
    #[arg(long, env = "TIDEGATE_ISA", value_name = "ISA")]
    pub isa: Option<Isa>,
}

/// How much runs at once.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Batching")]
pub struct BatchSettings {
    /// Most tokens that one step of the engine computes.
    #[arg(long, env = "TIDEGATE_MAX_BATCH_TOKENS", value_name = "TOKENS", default_value_t = Self::default().max_batch_tokens)]
    pub max_batch_tokens: NonZeroUsize,
    /// Most sequences that run at once.
    #[arg(long, env = "TIDEGATE_MAX_SEQUENCES", value_name = "N", default_value_t = Self::default().max_sequences)]
    pub max_sequences: NonZeroUsize,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self { max_batch_tokens: positive(512), max_sequences: positive(64) }
    }
}

const fn positive(number: usize) -> NonZeroUsize {
    match NonZeroUsize::new(number) {
        Some(number) => number,
        None => NonZeroUsize::MIN,
    }
}

/// How much waits.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Queue")]
pub struct QueueSettings {
    /// Most requests that wait; more are refused at once.
    #[arg(long, env = "TIDEGATE_MAX_QUEUE", value_name = "N", default_value_t = Self::default().max_queue)]
    pub max_queue: NonZeroUsize,
    /// Most prompt tokens that wait; more are refused at once.
    #[arg(long, env = "TIDEGATE_MAX_QUEUE_TOKENS", value_name = "TOKENS", default_value_t = Self::default().max_queue_tokens)]
    pub max_queue_tokens: NonZeroUsize,
    /// Order in which waiting requests are served: fifo, priority, round_robin (tenants take turns), fair_share (tenants
    /// share by tokens and weight) or deadline.
    #[arg(long, env = "TIDEGATE_QUEUE_POLICY", value_name = "POLICY", default_value_t = Self::default().queue_policy)]
    pub queue_policy: Discipline,
    /// Time of waiting that makes a request one level more urgent, under priority and fair_share.
    #[arg(long, env = "TIDEGATE_QUEUE_AGE_STEP", value_name = "TIME", default_value_t = Self::default().queue_age_step)]
    pub queue_age_step: TimeSpan,
    /// Share of a tenant under fair_share, such as alice=4; may be repeated; other tenants have 1.
    #[arg(long, env = "TIDEGATE_TENANT_WEIGHT", value_name = "TENANT=N", value_delimiter = ',')]
    pub tenant_weight: Vec<TenantWeight>,
}

impl QueueSettings {
    /// The order of service, as the queue takes it.
    pub fn policy(&self) -> PolicySettings {
        let policy = PolicySettings::from(self.queue_policy).age_step(self.queue_age_step.0);
        let weights = self.tenant_weight.iter();
        weights.fold(policy, |policy, share| policy.weight(&*share.tenant, share.weight))
    }
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self {
            max_queue: positive(512),
            max_queue_tokens: positive(1 << 20),
            queue_policy: Discipline::default(),
            queue_age_step: TimeSpan(PolicySettings::default().age_step),
            tenant_weight: Vec::new(),
        }
    }
}

/// How much memory is taken.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Memory")]
pub struct MemorySettings {
    /// Memory for keys and values, such as 2GiB; without it, a share of what is available, and no more than can be used.
    #[arg(long, env = "TIDEGATE_KV_MEMORY", value_name = "BYTES")]
    pub kv_memory: Option<ByteSize>,
}

/// Where and to whom it is served.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Server")]
pub struct ServerSettings {
    /// Address to listen on.
    #[arg(long, env = "TIDEGATE_HOST", value_name = "ADDRESS", default_value_t = Self::default().host)]
    pub host: IpAddr,
    /// Port to listen on; 0 takes a free one.
    #[arg(long, env = "TIDEGATE_PORT", default_value_t = Self::default().port)]
    pub port: u16,
    /// Key that clients must send as `Authorization: Bearer KEY`; may be repeated.
    #[arg(long, env = "TIDEGATE_API_KEY", value_name = "KEY", value_delimiter = ',', hide_env_values = true)]
    pub api_key: Vec<Secret>,
    /// File with one such key a line; empty lines and lines that begin with # are skipped.
    #[arg(long, env = "TIDEGATE_API_KEYS_FILE", value_name = "FILE")]
    pub api_keys_file: Option<PathBuf>,
    /// Key that opens /metrics; without it, everyone may read them.
    #[arg(long, env = "TIDEGATE_METRICS_KEY", value_name = "KEY", hide_env_values = true)]
    pub metrics_key: Option<Secret>,
    /// Largest request body.
    #[arg(long, env = "TIDEGATE_BODY_LIMIT", value_name = "BYTES", default_value_t = Self::default().body_limit)]
    pub body_limit: ByteSize,
    /// Most connections open at once; more wait in the kernel.
    #[arg(long, env = "TIDEGATE_MAX_CONNECTIONS", value_name = "N", default_value_t = Self::default().max_connections)]
    pub max_connections: NonZeroUsize,
    /// Status of a request that is refused because the queue is full.
    #[arg(long, env = "TIDEGATE_OVERLOAD_STATUS", value_name = "STATUS", default_value_t = Self::default().overload_status)]
    pub overload_status: OverloadStatus,
    /// Time that running requests have to finish after the first SIGTERM or Ctrl-C.
    #[arg(long, env = "TIDEGATE_SHUTDOWN_TIMEOUT", value_name = "TIME", default_value_t = Self::default().shutdown_timeout)]
    pub shutdown_timeout: TimeSpan,
}

impl Default for ServerSettings {
    fn default() -> Self {
        Self {
            host: IpAddr::from([127, 0, 0, 1]),
            port: 8080,
            api_key: Vec::new(),
            api_keys_file: None,
            metrics_key: None,
            body_limit: ByteSize(8 << 20),
            max_connections: positive(4096),
            overload_status: OverloadStatus::TooManyRequests,
            shutdown_timeout: TimeSpan::from_secs(30),
        }
    }
}

/// What is logged.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Log")]
pub struct LogSettings {
    /// Level (error, warn, info, debug, trace) or filter such as info,engine=debug; without it, info when serving and
    /// warn otherwise.
    #[arg(long, env = "TIDEGATE_LOG", value_name = "FILTER")]
    pub log: Option<String>,
    /// Form of log lines; without it, human on a terminal and JSON elsewhere.
    #[arg(long, env = "TIDEGATE_LOG_FORMAT", value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Coloured text for people.
    Human,
    /// One JSON object per line.
    Json,
}

/// Type of the weights, and with it of activations, keys and values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// IEEE 754 single precision.
    F32,
    /// The upper half of an `F32`; sums are kept in `F32`.
    Bf16,
    /// 8 bits and a scale per output; activations, keys and values in bf16.
    Int8,
    /// 4 bits and a scale per 32 inputs, and 8 bits for the projection to the vocabulary; the rest in bf16.
    Int4,
    /// As int4, with a scale per 128 inputs.
    #[value(name = "int4-g128")]
    Int4G128,
}

impl Precision {
    /// Type of activations, keys and values.
    pub(crate) fn activations(self) -> Dtype {
        if self == Self::F32 { Dtype::F32 } else { Dtype::Bf16 }
    }

    /// How weights are quantised, if they are.
    pub(crate) fn quantisation(self) -> Option<Quantisation> {
        match self {
            Self::F32 | Self::Bf16 => None,
            Self::Int8 => Some(Quantisation::INT8),
            Self::Int4 => Some(Quantisation::INT4),
            Self::Int4G128 => Some(Quantisation::INT4_G128),
        }
    }
}

/// Status of a request that is refused because the queue is full.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum OverloadStatus {
    /// What client libraries retry.
    #[value(name = "429")]
    TooManyRequests,
    /// What makes a load balancer try the next server.
    #[value(name = "503")]
    Unavailable,
}

impl fmt::Display for OverloadStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TooManyRequests => "429",
            Self::Unavailable => "503",
        })
    }
}

impl From<OverloadStatus> for server::Overload {
    fn from(status: OverloadStatus) -> Self {
        match status {
            OverloadStatus::TooManyRequests => Self::TooManyRequests,
            OverloadStatus::Unavailable => Self::Unavailable,
        }
    }
}

/// A text that is not shown in logs and listings.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// Where every setting stands in the configuration file.
pub const KEYS: &[Key] = &[
    Key { id: "model", section: "model", name: "path", unset: "the embedded model" },
    Key { id: "model_name", section: "model", name: "name", unset: "the name of the model's folder or file" },
    Key { id: "dtype", section: "model", name: "dtype", unset: "what the checkpoint says" },
    Key { id: "context", section: "model", name: "context", unset: "what the model and the memory allow" },
    Key { id: "threads", section: "compute", name: "threads", unset: "one per processor" },
    Key { id: "isa", section: "compute", name: "isa", unset: "the fastest that runs here" },
    Key { id: "max_batch_tokens", section: "batch", name: "tokens", unset: "" },
    Key { id: "max_sequences", section: "batch", name: "sequences", unset: "" },
    Key { id: "max_queue", section: "queue", name: "max", unset: "" },
    Key { id: "max_queue_tokens", section: "queue", name: "tokens", unset: "" },
    Key { id: "queue_policy", section: "queue", name: "policy", unset: "" },
    Key { id: "queue_age_step", section: "queue", name: "age_step", unset: "" },
    Key { id: "tenant_weight", section: "queue", name: "weights", unset: "every tenant has 1" },
    Key { id: "kv_memory", section: "memory", name: "kv", unset: "a share of what is available" },
    Key { id: "host", section: "server", name: "host", unset: "" },
    Key { id: "port", section: "server", name: "port", unset: "" },
    Key { id: "api_key", section: "server", name: "api_key", unset: "anyone may ask" },
    Key { id: "api_keys_file", section: "server", name: "api_keys_file", unset: "none" },
    Key { id: "metrics_key", section: "server", name: "metrics_key", unset: "everyone may read the metrics" },
    Key { id: "body_limit", section: "server", name: "body_limit", unset: "" },
    Key { id: "max_connections", section: "server", name: "connections", unset: "" },
    Key { id: "overload_status", section: "server", name: "overload_status", unset: "" },
    Key { id: "shutdown_timeout", section: "server", name: "shutdown_timeout", unset: "" },
    Key { id: "log", section: "log", name: "filter", unset: "info when serving, warn otherwise" },
    Key { id: "log_format", section: "log", name: "format", unset: "human on a terminal, json elsewhere" },
];

impl Settings {
    /// What the environment and a configuration file say; `./tidegate.toml` is read if `file` is `None` and it exists.
    ///
    /// # Errors
    /// When the file cannot be read or holds an unknown key, or when a value is not valid.
    pub fn load(file: Option<&Path>) -> Result<Self, SettingsError> {
        let mut arguments = vec!["tidegate".into()];
        if let Some(path) = file {
            arguments.extend(["--config".into(), path.as_os_str().to_owned()]);
        }
        let config = clap::Arg::new("config").long("config").value_parser(clap::value_parser!(PathBuf));
        let command = Self::augment_args(Command::new("tidegate").arg(config));
        let layers = layer(&command, arguments)?;
        Self::from_arg_matches(layers.matches()).map_err(SettingsError::Arguments)
    }
}

/// What is wrong with a configuration.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The command line does not parse, or asks for help.
    #[error(transparent)]
    Arguments(clap::Error),
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    Io {
        /// Which file.
        path: PathBuf,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// The configuration file is not TOML.
    #[error("{} is not valid TOML: {message}", path.display())]
    NotToml {
        /// Which file.
        path: PathBuf,
        /// Where and why.
        message: String,
    },
    /// The configuration file holds a key that is not a setting.
    #[error(
        "{}: '{key}' is not a setting{}; `tidegate config show` lists all",
        path.display(),
        near.as_ref().map_or_else(String::new, |near| format!("; did you mean '{near}'?"))
    )]
    UnknownKey {
        /// Which file.
        path: PathBuf,
        /// The key, with its section.
        key: String,
        /// A setting with a similar name.
        near: Option<String>,
    },
    /// A value cannot be used.
    #[error("{origin}: {message}")]
    BadValue {
        /// Where the value stands.
        origin: Origin,
        /// What is wrong and what would be right.
        message: String,
    },
}

#[cfg(test)]
mod tests;
