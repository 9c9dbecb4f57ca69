//! What is computed once for several requests.

use clap::Args;
use engine::{Coalescing, ReuseSettings as Reuse};

use super::{ByteSize, Switch, TimeSpan};

/// What is computed once for several requests. It is always a tenant's own. This is how people write it, with units and
/// defaults for the command line and the file; [`engine::ReuseSettings`] is the same for the engine, which knows neither.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Reuse")]
pub struct ReuseSettings {
    /// Whether requests that are the same and determined (greedy, or with a seed) share one run while it goes on.
    #[arg(long, env = "TIDEGATE_COALESCE", value_name = "SWITCH", default_value_t = Self::default().coalesce)]
    pub coalesce: Switch,
    /// Memory for answers that are kept and given again to the same determined request; 0 keeps none.
    #[arg(long, env = "TIDEGATE_RESULT_CACHE", value_name = "BYTES", default_value_t = Self::default().result_cache)]
    pub result_cache: ByteSize,
    /// How long an answer is kept.
    #[arg(long, env = "TIDEGATE_RESULT_CACHE_TTL", value_name = "TIME", default_value_t = Self::default().result_cache_ttl)]
    pub result_cache_ttl: TimeSpan,
}

impl Default for ReuseSettings {
    fn default() -> Self {
        Self { coalesce: Switch::On, result_cache: ByteSize(0), result_cache_ttl: TimeSpan::from_secs(600) }
    }
}

impl ReuseSettings {
    /// The same for [`engine::Reuse`].
    pub fn reuse(&self) -> Reuse {
        Reuse {
            coalescing: match self.coalesce {
                Switch::On => Coalescing::On,
                Switch::Off => Coalescing::Off,
            },
            kept_bytes: usize::try_from(self.result_cache.0).unwrap_or(usize::MAX),
            kept_for: self.result_cache_ttl.0,
        }
    }
}
