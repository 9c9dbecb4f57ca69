//! What the one who runs the server may choose. Nothing here is read from the environment.

use std::time::Duration;

use crate::{Fetching, Key, Keys, Quotas};

/// How the server behaves; the defaults suit one machine behind a proxy or alone.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who may ask; without keys everybody, as the tenant `default`.
    pub keys: Keys,
    /// What opens `/metrics`; without it everybody may read them.
    pub metrics_key: Option<Key>,
    /// What opens `/admin`; without it nobody may change anything.
    pub admin_key: Option<Key>,
    /// Whose names `/metrics` also tells.
    pub aliases: Option<Aliases>,
    /// What each tenant may take.
    pub quotas: Quotas,
    /// What one request may hold.
    pub limits: Limits,
    /// From where pictures are fetched that clients only name.
    pub fetching: Fetching,
    /// How long things may take.
    pub timeouts: Timeouts,
    /// How a full queue is reported.
    pub overload: Overload,
    /// Connections open at once; more wait in the kernel's backlog.
    pub connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            keys: Keys::default(),
            metrics_key: None,
            admin_key: None,
            aliases: None,
            quotas: Quotas::default(),
            limits: Limits::default(),
            fetching: Fetching::default(),
            timeouts: Timeouts::default(),
            overload: Overload::default(),
            connections: 4096,
        }
    }
}

/// What one request may hold at most. More is answered with 413 (body) or 400 (the rest).
#[derive(Clone, Debug)]
pub struct Limits {
    /// Bytes of a request body.
    pub body_bytes: usize,
    /// Turns of a conversation.
    pub messages: usize,
    /// Pictures of a conversation.
    pub images: usize,
    /// What every picture must keep.
    pub image: images::Limits,
    /// Prompts of one completion request.
    pub prompts: usize,
    /// Texts of one request for vectors or scores.
    pub inputs: usize,
    /// Continuations of one request, over all its prompts.
    pub choices: u32,
    /// Stop texts.
    pub stop: usize,
    /// Bytes of one stop text.
    pub stop_bytes: usize,
    /// Entries of `logit_bias`, and of `stop_token_ids`.
    pub token_entries: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            body_bytes: 8 << 20,
            messages: 4096,
            images: 32,
            image: images::Limits::default(),
            prompts: 128,
            inputs: 2048,
            choices: 128,
            stop: 16,
            stop_bytes: 1024,
            token_entries: 1024,
        }
    }
}

/// How long things may take.
#[derive(Clone, Debug)]
pub struct Timeouts {
    /// From the first byte of a connection or request to the end of its headers.
    pub headers: Duration,
    /// From the end of the headers to the end of the body.
    pub body: Duration,
    /// A stream that has nothing to say sends a comment after this long, so that proxies and clients keep it open.
    pub keep_alive: Duration,
    /// A client that takes nothing of what is sent for this long is taken for gone.
    pub stalled: Duration,
    /// From the shutdown signal to the end of [`crate::serve`], whatever still runs.
    pub shutdown: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            headers: Duration::from_secs(30),
            body: Duration::from_secs(60),
            keep_alive: Duration::from_secs(15),
            stalled: Duration::from_secs(60),
            shutdown: Duration::from_secs(30),
        }
    }
}

/// The status of a request that is refused because the queue is full. Both carry `Retry-After`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overload {
    /// 429, which client libraries retry and load balancers do not take for a broken server.
    #[default]
    TooManyRequests,
    /// 503, for a load balancer that moves on to the next server when it sees one.
    Unavailable,
}

/// Another server whose names of metrics are told beside our own, for dashboards and autoscalers that look for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aliases {
    /// `vllm:num_requests_waiting` and so on.
    Vllm,
}
