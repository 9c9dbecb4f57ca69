//! An engine: models behind one door, asked from event loops and from threads.

mod job;
mod stream;

use std::sync::{Arc, Mutex, PoisonError};

use pyo3::prelude::*;
use serde_json::json;
use tidegate::in_memory::{FileBytes, InMemory, Tensors};
use tidegate::protocol::{Adjustment, GenerateRequest, Generation, Inference};
use tidegate::settings::{KEYS, Key, Settings};
use tidegate::{Opened, Reuse, Source};

use crate::answer::{Answer, Marks, Vectors};
use crate::awaitable::Awaitable;
use crate::dlpack::Lent;
use crate::request::{Asked, AskedScores, AskedVectors};
use crate::{errors, runtime};

pub(crate) use job::Job;
pub(crate) use stream::EventStream;

/// Models that were opened. `tidegate.Engine` is the class for people.
#[pyclass(frozen)]
pub(crate) struct Engine {
    /// `None` once it was closed.
    inference: Mutex<Option<Arc<dyn Inference>>>,
    summary: String,
}

impl Engine {
    fn inference(&self) -> PyResult<Arc<dyn Inference>> {
        let inference = self.inference.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let closed =
            || errors::exception("EngineStoppedError", "the engine was closed; open another one", &[]);
        inference.ok_or_else(closed)
    }
}

/// Admits a request where reading its prompt holds up no event loop.
async fn admit(inference: Arc<dyn Inference>, request: GenerateRequest) -> PyResult<Generation> {
    let admission = Aborting(runtime::handle()?.spawn(async move { inference.generate(request).await }));
    admission.outcome().await?.map_err(|refusal| errors::refused(&refusal))
}

/// A task of the runtime that ends when nobody waits for it.
struct Aborting<T>(tokio::task::JoinHandle<T>);

impl<T> Aborting<T> {
    async fn outcome(mut self) -> PyResult<T> {
        (&mut self.0).await.map_err(|error| errors::exception("EngineError", error, &[]))
    }
}

impl<T> Drop for Aborting<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A model in Python's memory.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
struct Held<'py> {
    name: String,
    /// What would be the text files of its folder.
    files: Vec<(String, Vec<u8>)>,
    /// DLPack capsules by the names of the tensors.
    tensors: Vec<(String, Bound<'py, PyAny>)>,
}

impl Held<'_> {
    /// The same with its tensors where they are.
    fn model(self) -> PyResult<InMemory> {
        let tensors = self.tensors.iter().map(|(name, capsule)| {
            let lent = Lent::take(capsule)?;
            let (dtype, shape) = (lent.dtype(), lent.shape().to_vec());
            let bytes = FileBytes::Lent(Arc::new(lent));
            let single = dtype.and_then(|dtype| Tensors::single(name.clone(), dtype, shape, bytes));
            let wrong = || {
                format!("tensor '{name}' is of no type that weights have; give float32, float16 or bfloat16")
            };
            single.ok_or_else(|| errors::exception("ModelLoadError", wrong(), &[]))
        });
        Ok(InMemory { name: self.name, tensors: tensors.collect::<PyResult<_>>()?, files: self.files })
    }
}

/// Options that only a server heeds are refused rather than ignored.
fn require_heeded(options: &[(String, String)]) -> PyResult<()> {
    let is_served =
        |key: &Key| ["server", "tenants", "log"].contains(&key.section) || key.id == "memory_threshold";
    let unheeded = |(id, _): &&(String, String)| KEYS.iter().any(|key| key.id == *id && is_served(key));
    match options.iter().find(unheeded) {
        Some((id, _)) => {
            let message =
                format!("'{id}' is for `tidegate serve`; an engine in this process has no use for it");
            Err(errors::exception("InvalidRequestError", message, &[]))
        }
        None => Ok(()),
    }
}

#[pymethods]
impl Engine {
    /// Opens the models that the options name; see `tidegate serve --help` for them. It takes as long as loading does.
    /// `held` is a model that is in memory and comes first.
    #[new]
    #[pyo3(signature = (options, held=None))]
    fn new(py: Python<'_>, options: Vec<(String, String)>, held: Option<Held<'_>>) -> PyResult<Self> {
        require_heeded(&options)?;
        let held = held.map(Held::model).transpose()?;
        py.detach(|| {
            let settings = Settings::of(options)
                .map_err(|error| errors::exception("InvalidRequestError", error, &[]))?;
            let opened = match held {
                Some(model) => tidegate::open_in_memory(&settings.inference, model),
                None => tidegate::open(&settings.inference),
            };
            let opened = opened.map_err(|error| errors::not_opened(&error))?;
            let summary = summary(&opened);
            let inference: Arc<dyn Inference> =
                Arc::new(Reuse::new(opened.inference, settings.reuse.reuse()));
            Ok(Self { inference: Mutex::new(Some(inference)), summary })
        })
    }

    /// The whole answer to a request.
    fn generate(&self, asked: Asked) -> PyResult<Awaitable> {
        let (inference, request) = (self.inference()?, asked.request()?);
        Ok(Awaitable::new(async move { Answer::of(admit(inference, request).await?).await }))
    }

    /// The events of a request.
    fn stream(&self, asked: Asked) -> PyResult<EventStream> {
        Ok(EventStream::new(self.inference()?, asked.request()?))
    }

    /// Has the answer delivered to a `tidegate.Handle`; the job ends when it is aborted, not when it is dropped.
    fn submit(&self, asked: Asked, handle: Py<PyAny>) -> PyResult<Job> {
        let (inference, request) = (self.inference()?, asked.request()?);
        Job::begin(handle, async move {
            let generation = inference.generate(request).await;
            Answer::of(generation.map_err(|refusal| errors::refused(&refusal))?).await
        })
    }

    /// Vectors of texts.
    fn embed(&self, asked: AskedVectors) -> PyResult<Awaitable> {
        let (inference, request) = (self.inference()?, asked.request()?);
        Ok(Awaitable::new(async move {
            let work = Aborting(runtime::handle()?.spawn(async move { inference.embed(request).await }));
            Ok(Vectors::from(work.outcome().await?.map_err(|error| errors::unserved(&error))?))
        }))
    }

    /// Scores of documents.
    fn score(&self, asked: AskedScores) -> PyResult<Awaitable> {
        let (inference, request) = (self.inference()?, asked.request()?);
        Ok(Awaitable::new(async move {
            let work = Aborting(runtime::handle()?.spawn(async move { inference.score(request).await }));
            Ok(Marks::from(work.outcome().await?.map_err(|error| errors::unserved(&error))?))
        }))
    }

    /// Forgets the answers that are kept, or the keys and values of prompts (`results`, `prefixes`).
    fn forget(&self, what: &str) -> PyResult<Awaitable> {
        let adjustment = match what {
            "results" => Adjustment::ClearResults,
            _ => Adjustment::ClearPrefixCache,
        };
        self.adjust(adjustment)
    }

    /// Keeps answers within so many bytes.
    fn keep_results(&self, bytes: usize) -> PyResult<Awaitable> {
        self.adjust(Adjustment::KeepResults { bytes })
    }

    /// Lets requests that wait for a device with more to do wait for one with less.
    fn rebalance(&self) -> PyResult<Awaitable> {
        self.adjust(Adjustment::Rebalance)
    }

    /// Serves what waits by another policy.
    fn set_policy(&self, policy: String) -> PyResult<Awaitable> {
        self.adjust(Adjustment::Queue { policy: Some(policy), age_step: None, weights: Vec::new() })
    }

    /// What it is doing and has done, as JSON.
    fn status(&self) -> PyResult<String> {
        Ok(json!(self.inference()?.status()).to_string())
    }

    /// The models, as JSON.
    fn models(&self) -> PyResult<String> {
        Ok(json!(self.inference()?.models()).to_string())
    }

    /// What was opened, as JSON.
    fn summary(&self) -> &str {
        &self.summary
    }

    /// Accepts nothing more and waits until everything accepted has ended.
    fn drain(&self) -> PyResult<Awaitable> {
        let inference = self.inference()?;
        Ok(Awaitable::new(async move {
            inference.drain().await;
            Ok(())
        }))
    }

    /// Ends. What still runs fails.
    fn close(&self, py: Python<'_>) {
        let inference = self.inference.lock().unwrap_or_else(PoisonError::into_inner).take();
        // The last handle waits for the engine's threads.
        py.detach(|| drop(inference));
    }
}

impl Engine {
    fn adjust(&self, adjustment: Adjustment) -> PyResult<Awaitable> {
        let inference = self.inference()?;
        Ok(Awaitable::new(async move {
            inference.adjust(adjustment).await.map_err(|refusal| errors::refused(&refusal))
        }))
    }
}

fn summary(opened: &Opened) -> String {
    let summary = &opened.summary;
    let source = match &summary.source {
        Source::Embedded => None,
        place => Some(place.to_string()),
    };
    json!({
        "model": summary.card,
        "source": source,
        "compute": summary.compute,
        "threads": summary.threads,
        "max_sequences": summary.max_sequences,
        "max_batch_tokens": summary.max_batch_tokens,
        "max_queue": summary.max_queue,
        "load_seconds": summary.took.as_secs_f64(),
    })
    .to_string()
}

/// Runs the `tidegate` command and answers its exit code. The first argument is the name of the program.
#[pyfunction]
pub(crate) fn run_command(py: Python<'_>, arguments: Vec<std::ffi::OsString>) -> u8 {
    py.detach(|| tidegate::run_command(arguments))
}
