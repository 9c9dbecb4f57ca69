//! What runs, and how much of the machine it may use.

use std::fmt;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};
use flow::scheduler::Watermarks;
use memory::devices::DeviceChoice;
use memory::eviction::Policy;
use models::{PackedCache, Pooling, Quantisation};
use tensor::{Dtype, Isa, KvDtype};

use super::{
    ByteSize, DeviceLayout, ItlGains, ItlTarget, ModelChoice, QueueSettings, TimeSpan, VisionSettings,
    positive,
};

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
    /// What is kept on the disk.
    #[command(flatten)]
    pub cache: CacheSettings,
    /// How pictures are read.
    #[command(flatten)]
    pub vision: VisionSettings,
}

/// Which model.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Model")]
pub struct ModelSettings {
    /// Hugging Face folder or GGUF file of a model, or NAME=PATH to name it; without it, the embedded model runs, which
    /// is also called chat. May be repeated: models that generate, embed and rerank are served together.
    #[arg(long, env = "TIDEGATE_MODEL", value_name = "[NAME=]PATH", value_hint = ValueHint::AnyPath, value_delimiter = ',')]
    pub model: Vec<ModelChoice>,
    /// Name under which requests ask for the first model; without it, the name of its folder or file.
    #[arg(long, env = "TIDEGATE_MODEL_NAME", value_name = "NAME")]
    pub model_name: Option<String>,
    /// Type of the weights; without it, what the checkpoint says, and what a GGUF file has quantised stays as it is.
    /// Activations are f32 with f32 and where only the weights are quantised (int8-weight-only), which is slower and
    /// keeps more, and bf16 with all others. Weights are quantised as they are loaded.
    #[arg(long, env = "TIDEGATE_DTYPE", value_name = "DTYPE")]
    pub dtype: Option<Precision>,
    /// How keys and values are held; without it, as activations are. int8 has a scale for each head of each token: nearly
    /// twice as many tokens find room as in bf16.
    #[arg(long, env = "TIDEGATE_KV_DTYPE", value_name = "DTYPE")]
    pub kv_dtype: Option<KvPrecision>,
    /// Most tokens of prompt and output together; without it, what the model and the memory allow.
    #[arg(long, env = "TIDEGATE_CONTEXT", value_name = "TOKENS", value_parser = clap::value_parser!(u32).range(1..))]
    pub context: Option<u32>,
    /// How a model that generates makes the vector of a text, where its folder has no Sentence-Transformers files that say
    /// it: last, the hidden state of the last token, or mean, that of all tokens.
    #[arg(long, env = "TIDEGATE_POOLING", value_name = "POOLING", default_value_t = Self::default().pooling)]
    pub pooling: TokenPooling,
}

/// Which hidden states of a model that generates become the vector of a text.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum TokenPooling {
    /// That of the last token, which has seen all others.
    #[default]
    Last,
    /// The mean of all.
    Mean,
}

impl fmt::Display for TokenPooling {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::Last { "last" } else { "mean" })
    }
}

impl From<TokenPooling> for Pooling {
    fn from(pooling: TokenPooling) -> Self {
        match pooling {
            TokenPooling::Last => Self::Last,
            TokenPooling::Mean => Self::Mean,
        }
    }
}

/// Which processors and instructions.
#[derive(Args, Clone, Debug, Default, PartialEq)]
#[command(next_help_heading = "Compute")]
pub struct ComputeSettings {
    /// Compute threads; without it, one per processor that the system grants.
    #[arg(long, env = "TIDEGATE_THREADS", value_name = "N")]
    pub threads: Option<NonZeroUsize>,
    /// Devices on which every model has a replica; requests go to the one with least to do. A number divides the processors
    /// into so many groups, numa makes a device of each node of memory, and 0-3/4-7 names the processors of each. Compute
    /// threads, memory for keys and values, and what may wait are divided among them.
    #[arg(long, env = "TIDEGATE_DEVICES", value_name = "DEVICES", default_value_t = Self::default().devices)]
    pub devices: DeviceLayout,
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
    /// Whether a step may try several tokens of a text at once, where the text has gone on with them before. That pays for
    /// texts that repeat themselves, is done where it pays, and never changes what comes out.
    #[arg(long, env = "TIDEGATE_SPECULATION", value_name = "SWITCH", default_value_t = Self::default().speculation)]
    pub speculation: Switch,
    /// Time between two tokens of a stream that steps aim at while prompts are read, such as 50ms: a controller makes steps
    /// smaller or larger to meet it. off is throughput mode: steps are as large as they may be.
    #[arg(long, env = "TIDEGATE_TARGET_ITL", value_name = "TIME", default_value_t = Self::default().target_itl)]
    pub target_itl: ItlTarget,
    /// Gains of that controller: proportional, integral and derivative.
    #[arg(long, env = "TIDEGATE_ITL_GAINS", value_name = "P,I,D", default_value_t = Self::default().itl_gains)]
    pub itl_gains: ItlGains,
    /// Time that making a JSON schema, a regular expression or a grammar ready may take; a form that takes longer is refused.
    #[arg(long, env = "TIDEGATE_FORM_TIMEOUT", value_name = "TIME", default_value_t = Self::default().form_timeout)]
    pub form_timeout: TimeSpan,
    /// A model that does not come back from a step for so long is loaded again, and what waits and runs goes on: far longer
    /// than a step can take. 0 waits for ever.
    #[arg(long, env = "TIDEGATE_RESTART_AFTER", value_name = "TIME", default_value_t = Self::default().restart_after)]
    pub restart_after: TimeSpan,
    /// File to record arrivals and steps in, for `tidegate sim`; it holds no text and no names.
    #[arg(long, env = "TIDEGATE_TRACE", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub trace: Option<PathBuf>,
}

impl Default for BatchSettings {
    fn default() -> Self {
        Self {
            max_batch_tokens: positive(512),
            max_sequences: positive(64),
            speculation: Switch::On,
            target_itl: ItlTarget::default(),
            itl_gains: ItlGains::default(),
            form_timeout: TimeSpan::from_secs(10),
            restart_after: TimeSpan::from_secs(600),
            trace: None,
        }
    }
}

/// How much memory is taken.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Memory")]
pub struct MemorySettings {
    /// Memory for all models together, such as 8GiB: weights, keys and values, and what they compute in. A model that does
    /// not fit beside the others is refused. Without it, there is no limit.
    #[arg(long, env = "TIDEGATE_MODEL_MEMORY", value_name = "BYTES")]
    pub model_memory: Option<ByteSize>,
    /// A model that nobody has asked for so long gives its memory back, and is loaded again for the next request. 0: never.
    #[arg(long, env = "TIDEGATE_IDLE_UNLOAD", value_name = "TIME", default_value_t = Self::default().idle_unload)]
    pub idle_unload: TimeSpan,
    /// Memory for the weights of each model, such as 400MB; without it, as much as they take. Weights that take more are
    /// read from the cache of packed weights whenever they are needed, a few ahead of those in use: the same output, as fast
    /// as the disk. The embedded model is in memory whole.
    #[arg(long, env = "TIDEGATE_WEIGHT_MEMORY", value_name = "BYTES")]
    pub weight_memory: Option<ByteSize>,
    /// Share of the memory, of the machine or of the control group, from which on `tidegate serve` gives things up: kept
    /// answers first, then features of images, then keys and values that nobody uses, then models that nobody has asked for
    /// for 10 seconds, all but one; then requests start one by one, and half of the way to 1 none starts while others run,
    /// and models go as soon as they have nothing to do. Those that went are loaded again when they are asked for. 1 never
    /// gives up anything.
    #[arg(long, env = "TIDEGATE_MEMORY_THRESHOLD", value_name = "SHARE", default_value_t = Self::default().memory_threshold,
        value_parser = share)]
    pub memory_threshold: f64,
    /// Memory for keys and values, such as 2GiB; without it, a share of what is available, and no more than can be used.
    #[arg(long, env = "TIDEGATE_KV_MEMORY", value_name = "BYTES")]
    pub kv_memory: Option<ByteSize>,
    /// Whether requests of a tenant share the keys and values of equal beginnings of their prompts. They take no memory of
    /// their own: what nobody needs is kept until its memory is needed.
    #[arg(long, env = "TIDEGATE_PREFIX_CACHE", value_name = "SWITCH", default_value_t = Self::default().prefix_cache)]
    pub prefix_cache: Switch,
    /// Folder for keys and values that memory has no room for: they come back when a prompt begins with the same text, where
    /// that is faster than computing them, also after a restart. Without it, they are computed again. Give each process a
    /// folder of its own, that nobody else may read.
    #[arg(long, env = "TIDEGATE_KV_DIR", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub kv_dir: Option<PathBuf>,
    /// Most that keys and values may take there, for each model.
    #[arg(long, env = "TIDEGATE_KV_DISK", value_name = "BYTES", default_value_t = Self::default().kv_disk)]
    pub kv_disk: ByteSize,
    /// A device such as a GPU to whose memory they go before they go to the disk: auto for the first that is not the processor, a
    /// number, or a part of its name; an unknown one lists those that there are. OpenCL reaches it, which its driver brings.
    /// Beside --kv-dir all of them are on the disk too; alone, they are gone when the process ends.
    #[arg(long, env = "TIDEGATE_KV_DEVICE", value_name = "DEVICE")]
    pub kv_device: Option<DeviceChoice>,
    /// Most that they may take of the device's memory, for each model.
    #[arg(long, env = "TIDEGATE_KV_DEVICE_MEMORY", value_name = "BYTES", default_value_t = Self::default().kv_device_memory)]
    pub kv_device_memory: ByteSize,
    /// Which of them go first when that is full: lru, lfu, lirs, cost, presence or once. `tidegate sim --eviction` says for a
    /// recorded trace what each of them would have kept.
    #[arg(long, env = "TIDEGATE_KV_POLICY", value_name = "POLICY", default_value_t = Self::default().kv_policy)]
    pub kv_policy: Policy,
}

impl Default for MemorySettings {
    fn default() -> Self {
        Self {
            model_memory: None,
            idle_unload: TimeSpan::from_secs(0),
            weight_memory: None,
            memory_threshold: 0.9,
            kv_memory: None,
            prefix_cache: Switch::On,
            kv_dir: None,
            kv_disk: ByteSize(8 << 30),
            kv_device: None,
            kv_device_memory: ByteSize(1 << 30),
            kv_policy: Policy::OF_PAGES,
        }
    }
}

/// A share that something can be: more than 0, at most 1.
fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a share is a number above 0 and up to 1, such as 0.8".to_owned())
}

impl MemorySettings {
    /// From which shares on something is given up, if ever.
    pub fn watermarks(&self) -> Option<Watermarks> {
        Watermarks::above(self.memory_threshold)
    }
}

/// Whether something is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Switch {
    /// It is.
    #[default]
    On,
    /// It is not.
    Off,
}

impl fmt::Display for Switch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Self::On { "on" } else { "off" })
    }
}

/// What is kept on the disk between starts.
#[derive(Args, Clone, Debug, PartialEq)]
#[command(next_help_heading = "Cache")]
pub struct CacheSettings {
    /// Folder for packed weights, which make the next start of the same model faster; without it, tidegate in the user's
    /// cache folder ($XDG_CACHE_HOME or ~/.cache).
    #[arg(long, env = "TIDEGATE_CACHE_DIR", value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub cache_dir: Option<PathBuf>,
    /// Most that packed weights may take there, of which the least recently used go first; 0 keeps none.
    #[arg(long, env = "TIDEGATE_CACHE_SIZE", value_name = "BYTES", default_value_t = Self::default().cache_size)]
    pub cache_size: ByteSize,
    /// Keep nothing and use nothing that was kept.
    #[arg(long)]
    pub no_cache: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { cache_dir: None, cache_size: ByteSize(16 << 30), no_cache: false }
    }
}

impl CacheSettings {
    /// The cache, unless there is to be none or nobody says where.
    pub fn packed(&self) -> Option<PackedCache> {
        let wanted = !self.no_cache && self.cache_size.0 > 0;
        let folder = self.cache_dir.clone().or_else(user_cache)?;
        wanted.then(|| PackedCache::new(folder, self.cache_size.0))
    }
}

/// Our part of the user's cache folder, by the XDG Base Directory Specification: a relative path there does not count.
#[expect(clippy::disallowed_methods, reason = "this is the one place")]
fn user_cache() -> Option<PathBuf> {
    let absolute = |path: PathBuf| path.is_absolute().then_some(path);
    let stated = std::env::var_os("XDG_CACHE_HOME").and_then(|path| absolute(path.into()));
    let home =
        || std::env::var_os("HOME").and_then(|path| absolute(path.into())).map(|home| home.join(".cache"));
    Some(stated.or_else(home)?.join("tidegate"))
}

/// Type of the weights, and with it of activations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Precision {
    /// IEEE 754 single precision.
    F32,
    /// The upper half of an `F32`; sums are kept in `F32`.
    Bf16,
    /// 8 bits and a scale per output; activations are rounded to 8 bits for products, keys and values to bf16.
    Int8,
    /// 4 bits and a scale per 32 inputs, and 8 bits for the projection to the vocabulary; the rest in bf16.
    Int4,
    /// As int4, with a scale per 128 inputs.
    #[value(name = "int4-g128")]
    Int4G128,
    /// The weights of int8 under activations in f32, which nothing rounds: slower, for models that lose too much otherwise.
    Int8WeightOnly,
    /// The weights of int4 under activations in f32.
    Int4WeightOnly,
}

/// How keys and values are held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum KvPrecision {
    /// IEEE 754 single precision.
    F32,
    /// The upper half of an `F32`.
    Bf16,
    /// 8 bits, and a scale for each head of each token.
    Int8,
}

impl From<KvPrecision> for KvDtype {
    fn from(precision: KvPrecision) -> Self {
        match precision {
            KvPrecision::F32 => Self::F32,
            KvPrecision::Bf16 => Self::Bf16,
            KvPrecision::Int8 => Self::Int8,
        }
    }
}

impl Precision {
    /// Type of activations, and of keys and values where nothing else is said.
    pub fn activations(self) -> Dtype {
        match self {
            Self::F32 | Self::Int8WeightOnly | Self::Int4WeightOnly => Dtype::F32,
            Self::Bf16 | Self::Int8 | Self::Int4 | Self::Int4G128 => Dtype::Bf16,
        }
    }

    /// How weights are quantised, if they are.
    pub fn quantisation(self) -> Option<Quantisation> {
        match self {
            Self::F32 | Self::Bf16 => None,
            Self::Int8 | Self::Int8WeightOnly => Some(Quantisation::INT8),
            Self::Int4 | Self::Int4WeightOnly => Some(Quantisation::INT4),
            Self::Int4G128 => Some(Quantisation::INT4_G128),
        }
    }
}
