//! Where and to whom it is served.

use std::fmt;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum};
use server::ImageHost;

use super::{ByteSize, TimeSpan, positive};

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
    /// Another server under whose names /metrics also tells what it measures, for dashboards that look for these.
    #[arg(long, env = "TIDEGATE_METRICS_ALIASES", value_name = "SERVER")]
    pub metrics_aliases: Option<MetricsAliases>,
    /// Key that opens /admin; without it, nobody may change anything over HTTP.
    #[arg(long, env = "TIDEGATE_ADMIN_KEY", value_name = "KEY", hide_env_values = true)]
    pub admin_key: Option<Secret>,
    /// Collector of traces, such as http://localhost:4318, to which the spans of requests go as OTLP over HTTP, in builds with
    /// the feature otlp.
    #[arg(long, env = "TIDEGATE_OTLP_ENDPOINT", value_name = "URL")]
    pub otlp_endpoint: Option<String>,
    /// Largest request body.
    #[arg(long, env = "TIDEGATE_BODY_LIMIT", value_name = "BYTES", default_value_t = Self::default().body_limit)]
    pub body_limit: ByteSize,
    /// Host from which images are fetched that clients name by an address, such as images.example.org or *.example.org;
    /// files.lan:8000=private is for one whose address may be a private one. May be repeated.
    #[arg(long, env = "TIDEGATE_IMAGE_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub image_hosts: Vec<ImageHost>,
    /// Time that an image may take to be fetched.
    #[arg(long, env = "TIDEGATE_IMAGE_TIMEOUT", value_name = "TIME", default_value_t = Self::default().image_timeout)]
    pub image_timeout: TimeSpan,
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
            metrics_aliases: None,
            admin_key: None,
            otlp_endpoint: None,
            body_limit: ByteSize(8 << 20),
            image_hosts: Vec::new(),
            image_timeout: TimeSpan::from_secs(10),
            max_connections: positive(4096),
            overload_status: OverloadStatus::TooManyRequests,
            shutdown_timeout: TimeSpan::from_secs(30),
        }
    }
}

impl ServerSettings {
    /// The collector of traces: the one that is set, or else the one that all programs with OpenTelemetry are told of.
    #[expect(clippy::disallowed_methods, reason = "the variable is not ours, so it is none of the settings")]
    pub fn collector(&self) -> Option<String> {
        let told = self.otlp_endpoint.clone().or_else(|| std::env::var("OTEL_EXPORTER_OTLP_ENDPOINT").ok());
        told.filter(|endpoint| !endpoint.is_empty())
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

/// Whose names of metrics are told beside our own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MetricsAliases {
    /// `vllm:num_requests_waiting` and so on.
    Vllm,
}

impl From<MetricsAliases> for server::Aliases {
    fn from(MetricsAliases::Vllm: MetricsAliases) -> Self {
        Self::Vllm
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
