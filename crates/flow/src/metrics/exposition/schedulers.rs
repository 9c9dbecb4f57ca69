//! Schedulers on the page.

use std::fmt;

use super::Page;
use crate::scheduler::{ResourceStatus, SchedulerStatus, Unit};

/// A resource with whose it is and where.
type Placed<'a> = (&'a str, &'a str, &'a ResourceStatus);

pub(super) fn show(page: &mut Page<'_>, schedulers: &[(&str, &SchedulerStatus)]) -> fmt::Result {
    if schedulers.is_empty() {
        return Ok(());
    }
    let resources: Vec<Placed<'_>> =
        schedulers.iter().flat_map(|(scheduler, status)| resources(scheduler, status)).collect();
    let labelled = |amount: fn(&ResourceStatus) -> u64| {
        resources.iter().map(move |(scheduler, place, resource)| {
            let labels = [("scheduler", *scheduler), ("place", *place), ("resource", &*resource.name)];
            (labels, shown(resource, amount(resource)))
        })
    };
    page.gauges("flow_scheduler_capacity", "What there is", labelled(|resource| resource.capacity))?;
    page.gauges("flow_scheduler_reserved", "What is reserved", labelled(|resource| resource.reserved))?;
    let mut gauge = |name: &str, help: &str, value: fn(&SchedulerStatus) -> f64| {
        page.gauges(
            name,
            help,
            schedulers.iter().map(|(name, status)| ([("scheduler", *name)], value(status))),
        )
    };
    gauge("flow_scheduler_waiting", "Work that waits", |status| status.waiting as f64)?;
    let help = "Age of the oldest waiting work";
    gauge("flow_scheduler_oldest_age_seconds", help, |status| {
        status.oldest.unwrap_or_default().as_secs_f64()
    })?;
    gauge("flow_scheduler_running", "Reservations that are held", |status| status.running as f64)?;
    let help = "Pressure on memory: 0 none, 1 starts are slowed, 2 nothing starts";
    gauge("flow_scheduler_pressure", help, |status| (status.pressure as u8).into())?;
    let waits = schedulers.iter().map(|(name, status)| ([("scheduler", *name)], &status.waits));
    page.histograms("flow_scheduler_wait_seconds", "How long work waited that started", waits)
}

fn resources<'a>(scheduler: &'a str, status: &'a SchedulerStatus) -> impl Iterator<Item = Placed<'a>> {
    let of_machine = status.resources.iter().map(move |resource| (scheduler, "machine", resource));
    let of_devices = status.devices.iter().flat_map(move |device| {
        device.resources.iter().map(move |resource| (scheduler, &*device.name, resource))
    });
    of_machine.chain(of_devices)
}

/// Bytes are bytes; processors and devices are whole ones, not thousandths.
fn shown(resource: &ResourceStatus, amount: u64) -> f64 {
    let amount = amount as f64;
    if resource.unit == Unit::Thousandths { amount / 1000.0 } else { amount }
}
