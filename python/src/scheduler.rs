//! Work that runs once the resources are free that it needs.

use std::time::Duration;

use flow::scheduler::{Device, Inventory, Rules, ScheduleError, SchedulerStatus, Terms};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::awaitable::Awaitable;
use crate::call::{Function, setting};
use crate::errors;
use crate::request::seconds;
use crate::runtime;

/// Shares out what the machine has.
#[pyclass(frozen)]
pub(crate) struct Scheduler {
    scheduler: flow::Scheduler,
}

fn failed(error: &ScheduleError) -> PyErr {
    let kind = match error {
        ScheduleError::Impossible(_) => "ImpossibleError",
        ScheduleError::Expired => "DeadlineExceededError",
        ScheduleError::Closed => "QueueClosedError",
        _ => "TaskFailedError",
    };
    errors::exception(kind, error, &[])
}

#[pymethods]
impl Scheduler {
    /// `workers` pieces of work run at once; memory in bytes and processors in thousandths are those of the machine
    /// where nothing is said; devices are kind, name and bytes of memory.
    #[new]
    fn new(settings: &Bound<'_, PyDict>) -> PyResult<Self> {
        let mut inventory = Inventory::detected();
        if let Some(workers) = setting(settings, "workers")? {
            inventory = inventory.slots("workers", workers);
        }
        if let Some(memory) = setting(settings, "memory")? {
            inventory = inventory.memory(memory);
        }
        if let Some(cpu) = setting(settings, "cpu")? {
            inventory = inventory.cpu(cpu);
        }
        let devices = setting::<Vec<(String, String, u64)>>(settings, "devices")?.unwrap_or_default();
        for (kind, name, memory) in devices {
            inventory = inventory.device(Device::new(&kind, &name).memory(memory));
        }
        let mut rules = Rules::default();
        if let Some(step) = setting::<f64>(settings, "age_step")? {
            rules.age_step = seconds("age_step", step)?;
        }
        let _runtime = runtime::handle()?.enter();
        let scheduler = flow::Scheduler::new(&inventory, rules);
        let scheduler = scheduler.map_err(|error| errors::exception("InvalidRequestError", error, &[]))?;
        Ok(Self { scheduler })
    }

    /// Calls a function once its needs are met, which it gives back when it has ended. The needs are text, such as
    /// `memory: 2GB, gpu: 1`; with `with_devices` it is given the names of its devices.
    fn schedule(&self, function: Py<PyAny>, place: &str, terms: &Bound<'_, PyDict>) -> PyResult<Awaitable> {
        let needs: String = setting(terms, "needs")?.unwrap_or_default();
        let needs = self.scheduler.needs(&needs).map_err(|error| failed(&error.into()))?;
        let owner: String = setting(terms, "owner")?.unwrap_or_default();
        let mut asked = Terms::of(&owner).level(setting(terms, "level")?.unwrap_or(1));
        let timeout = setting::<f64>(terms, "timeout")?.map(|value| seconds("timeout", value)).transpose()?;
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        if let Some(deadline) = deadline {
            asked = asked.deadline(deadline);
        }
        let (scheduler, function) = (self.scheduler.clone(), Function::new(function, place, None));
        Ok(Awaitable::new(async move {
            let reservation = scheduler.acquire(&needs, asked).await.map_err(|error| failed(&error))?;
            let work = function.call_here(Python::attach(|py| PyTuple::empty(py).unbind()));
            let ended = match deadline {
                Some(deadline) => {
                    timeout_at(deadline, work).await.map_err(|_| failed(&ScheduleError::Expired))?
                }
                None => work.await,
            };
            drop(reservation);
            ended
        }))
    }

    /// Changes how much there is of something.
    fn set_capacity(&self, name: &str, amount: u64) -> PyResult<()> {
        let changed = self.scheduler.set_capacity(name, amount);
        changed.map_err(|error| errors::exception("InvalidRequestError", error, &[]))
    }

    /// The more weight an owner has, the more it gets before others go first.
    fn set_weight(&self, owner: &str, weight: f64) {
        self.scheduler.set_weight(owner, weight);
    }

    /// Everything at this moment, as JSON.
    fn status(&self) -> String {
        let SchedulerStatus {
            resources, devices, waiting, oldest, running, started, waits, pressure, ..
        } = self.scheduler.status();
        let resource = |resource: &flow::scheduler::ResourceStatus| {
            (resource.name.to_string(), json!({"capacity": resource.capacity, "reserved": resource.reserved}))
        };
        let all = |resources: &[flow::scheduler::ResourceStatus]| {
            Value::Object(resources.iter().map(resource).collect())
        };
        let device = |device: &flow::scheduler::DeviceStatus| json!({"name": &*device.name, "kind": &*device.kind, "resources": all(&device.resources)});
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        json!({
            "resources": all(&resources),
            "devices": devices.iter().map(device).collect::<Vec<_>>(),
            "waiting": waiting,
            "oldest_seconds": oldest.map(|age| age.as_secs_f64()),
            "running": running,
            "started": started,
            "wait_p50_ms": millis(waits.quantile(0.5)),
            "wait_p99_ms": millis(waits.quantile(0.99)),
            "pressure": format!("{pressure:?}").to_lowercase(),
        })
        .to_string()
    }

    /// Accepts nothing more and waits until nothing runs; answers how much still does.
    fn drain(&self, timeout: f64) -> PyResult<Awaitable> {
        let (scheduler, deadline) = (self.scheduler.clone(), Instant::now() + seconds("timeout", timeout)?);
        Ok(Awaitable::new(async move { Ok(scheduler.drain(deadline).await) }))
    }
}
