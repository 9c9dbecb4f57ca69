//! How much waits, and in which order it is served.

use std::num::NonZeroUsize;

use clap::Args;
use flow::queue::policy::{Discipline, PolicySettings};

use super::{Allowance, ByteSize, TenantWeight, TimeSpan, positive};

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
    /// Most bytes of prompts that wait, counted before they are read; more are refused at once.
    #[arg(long, env = "TIDEGATE_MAX_QUEUE_BYTES", value_name = "BYTES", default_value_t = Self::default().max_queue_bytes)]
    pub max_queue_bytes: ByteSize,
    /// Requests that are accepted in a time, such as 20/s or 600/min; more are refused at once. Without it, no limit.
    #[arg(long, env = "TIDEGATE_RATE_LIMIT", value_name = "RATE")]
    pub rate_limit: Option<Allowance>,
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
            max_queue_bytes: ByteSize(256 << 20),
            rate_limit: None,
            queue_policy: Discipline::default(),
            queue_age_step: TimeSpan(PolicySettings::default().age_step),
            tenant_weight: Vec::new(),
        }
    }
}
