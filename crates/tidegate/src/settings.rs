//! The one place where configuration is read: flag, then `TIDEGATE_*` variable, then file, then default.
//!
//! Every setting is one field, in a file beside this one, with its flag, its variable and its default beside it, and one
//! line in [`KEYS`] that says where it stands in the configuration file. What belongs to a single call, such as a prompt or a temperature, is an
//! argument of its verb and not a setting.

mod choice;
mod devices;
mod error;
mod file;
mod inference;
mod layers;
mod log;
mod pace;
mod queue;
mod rate;
mod reuse;
mod server;
mod tenants;
mod units;
mod vision;

use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use clap::{Args, Command, FromArgMatches};

pub use choice::ModelChoice;
pub use devices::DeviceLayout;
pub use error::SettingsError;
pub use file::ConfigFile;
pub use inference::{
    BatchSettings, CacheSettings, ComputeSettings, InferenceSettings, KvPrecision, MemorySettings,
    ModelSettings, Precision, Switch, TokenPooling,
};
pub use layers::{Key, Layers, Origin, Setting, layer};
pub use log::{LogFormat, LogSettings};
pub use pace::{ItlGains, ItlTarget};
pub use queue::QueueSettings;
pub use rate::{Allowance, Period};
pub use reuse::ReuseSettings;
pub use server::{MetricsAliases, OverloadStatus, Secret, ServerSettings};
pub use tenants::{OfTenant, TenantSettings};
pub use units::{ByteSize, TenantWeight, TimeSpan};
pub use vision::VisionSettings;

/// Everything that can be set.
#[derive(Args, Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// What runs, and how much of the machine it may use.
    #[command(flatten)]
    pub inference: InferenceSettings,
    /// What is computed once for several requests.
    #[command(flatten)]
    pub reuse: ReuseSettings,
    /// Where and to whom it is served.
    #[command(flatten)]
    pub server: ServerSettings,
    /// What each tenant may take.
    #[command(flatten)]
    pub tenants: TenantSettings,
    /// What is logged.
    #[command(flatten)]
    pub log: LogSettings,
}

const fn positive(number: usize) -> NonZeroUsize {
    match NonZeroUsize::new(number) {
        Some(number) => number,
        None => NonZeroUsize::MIN,
    }
}

/// Where every setting stands in the configuration file.
pub const KEYS: &[Key] = &[
    Key { id: "model", section: "model", name: "path", unset: "the embedded model" },
    Key { id: "model_name", section: "model", name: "name", unset: "the name of the model's folder or file" },
    Key { id: "dtype", section: "model", name: "dtype", unset: "what the checkpoint says" },
    Key { id: "kv_dtype", section: "model", name: "kv_dtype", unset: "as activations are" },
    Key { id: "context", section: "model", name: "context", unset: "what the model and the memory allow" },
    Key { id: "pooling", section: "model", name: "pooling", unset: "" },
    Key { id: "threads", section: "compute", name: "threads", unset: "one per processor" },
    Key { id: "devices", section: "compute", name: "devices", unset: "" },
    Key { id: "isa", section: "compute", name: "isa", unset: "the fastest that runs here" },
    Key { id: "max_batch_tokens", section: "batch", name: "tokens", unset: "" },
    Key { id: "max_sequences", section: "batch", name: "sequences", unset: "" },
    Key { id: "speculation", section: "batch", name: "speculation", unset: "" },
    Key { id: "restart_after", section: "batch", name: "restart_after", unset: "" },
    Key { id: "form_timeout", section: "batch", name: "form_timeout", unset: "" },
    Key { id: "target_itl", section: "batch", name: "target_itl", unset: "" },
    Key { id: "itl_gains", section: "batch", name: "itl_gains", unset: "" },
    Key { id: "trace", section: "batch", name: "trace", unset: "nothing is recorded" },
    Key { id: "max_queue", section: "queue", name: "max", unset: "" },
    Key { id: "max_queue_tokens", section: "queue", name: "tokens", unset: "" },
    Key { id: "max_queue_bytes", section: "queue", name: "bytes", unset: "" },
    Key { id: "rate_limit", section: "queue", name: "rate", unset: "without limit" },
    Key { id: "queue_policy", section: "queue", name: "policy", unset: "" },
    Key { id: "queue_age_step", section: "queue", name: "age_step", unset: "" },
    Key { id: "tenant_weight", section: "queue", name: "weights", unset: "every tenant has 1" },
    Key { id: "model_memory", section: "memory", name: "models", unset: "no limit" },
    Key { id: "idle_unload", section: "memory", name: "idle_unload", unset: "" },
    Key { id: "weight_memory", section: "memory", name: "weights", unset: "as much as they take" },
    Key { id: "memory_threshold", section: "memory", name: "threshold", unset: "" },
    Key { id: "kv_memory", section: "memory", name: "kv", unset: "a share of what is available" },
    Key { id: "prefix_cache", section: "memory", name: "prefix_cache", unset: "" },
    Key { id: "kv_dir", section: "memory", name: "kv_dir", unset: "nothing is kept" },
    Key { id: "kv_disk", section: "memory", name: "kv_disk", unset: "" },
    Key { id: "kv_device", section: "memory", name: "kv_device", unset: "none" },
    Key { id: "kv_device_memory", section: "memory", name: "kv_device_memory", unset: "" },
    Key { id: "kv_policy", section: "memory", name: "kv_policy", unset: "" },
    Key { id: "cache_dir", section: "cache", name: "dir", unset: "tidegate in the user's cache folder" },
    Key { id: "cache_size", section: "cache", name: "size", unset: "" },
    Key { id: "image_threads", section: "vision", name: "threads", unset: "" },
    Key { id: "max_images", section: "vision", name: "images", unset: "" },
    Key { id: "image_memory", section: "vision", name: "memory", unset: "" },
    Key { id: "vision_cache", section: "vision", name: "cache", unset: "" },
    Key { id: "vision_dir", section: "vision", name: "dir", unset: "nothing is kept" },
    Key { id: "vision_disk", section: "vision", name: "disk", unset: "" },
    Key { id: "vision_share", section: "vision", name: "share", unset: "" },
    Key { id: "coalesce", section: "reuse", name: "coalesce", unset: "" },
    Key { id: "result_cache", section: "reuse", name: "results", unset: "" },
    Key { id: "result_cache_ttl", section: "reuse", name: "ttl", unset: "" },
    Key { id: "host", section: "server", name: "host", unset: "" },
    Key { id: "port", section: "server", name: "port", unset: "" },
    Key { id: "api_key", section: "server", name: "api_key", unset: "anyone may ask" },
    Key { id: "api_keys_file", section: "server", name: "api_keys_file", unset: "none" },
    Key { id: "metrics_key", section: "server", name: "metrics_key", unset: "everyone may read the metrics" },
    Key { id: "metrics_aliases", section: "server", name: "metrics_aliases", unset: "none" },
    Key { id: "admin_key", section: "server", name: "admin_key", unset: "nothing can be changed over HTTP" },
    Key {
        id: "otlp_endpoint",
        section: "server",
        name: "otlp_endpoint",
        unset: "what OTEL_EXPORTER_OTLP_ENDPOINT says",
    },
    Key { id: "body_limit", section: "server", name: "body_limit", unset: "" },
    Key { id: "image_hosts", section: "server", name: "image_hosts", unset: "no image is fetched" },
    Key { id: "image_timeout", section: "server", name: "image_timeout", unset: "" },
    Key { id: "max_connections", section: "server", name: "connections", unset: "" },
    Key { id: "overload_status", section: "server", name: "overload_status", unset: "" },
    Key { id: "shutdown_timeout", section: "server", name: "shutdown_timeout", unset: "" },
    Key { id: "tenant_rate_limit", section: "tenants", name: "rate", unset: "without limit" },
    Key { id: "tenant_token_limit", section: "tenants", name: "tokens", unset: "without limit" },
    Key { id: "tenant_concurrency", section: "tenants", name: "concurrency", unset: "without limit" },
    Key { id: "log", section: "log", name: "filter", unset: "info when serving, warn otherwise" },
    Key { id: "log_format", section: "log", name: "format", unset: "human on a terminal, json elsewhere" },
];

impl Settings {
    /// What options say that are given by their names in [`KEYS`], over the environment and the defaults; no file is read.
    /// A switch has an empty value.
    ///
    /// # Errors
    /// When there is no option of a name, or a value is not valid.
    pub fn of(options: impl IntoIterator<Item = (String, String)>) -> Result<Self, SettingsError> {
        let flag = |id: &str| format!("--{}", id.replace('_', "-"));
        let word = |(id, value): (String, String)| match value.as_str() {
            "" => flag(&id),
            value => format!("{}={value}", flag(&id)),
        };
        let words = options.into_iter().map(word);
        let command =
            Self::augment_args(Command::new("tidegate").no_binary_name(true).disable_help_flag(true));
        let matches = command.try_get_matches_from(words).map_err(SettingsError::Arguments)?;
        Self::from_arg_matches(&matches).map_err(SettingsError::Arguments)
    }

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

#[cfg(test)]
mod tests;
