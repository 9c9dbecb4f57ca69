//! How a scheduler appears on a page for Prometheus.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;

use super::{ResourceStatus, Scheduler, Unit};
use crate::metrics::exposition::Page;

/// Bytes are bytes; processors and devices are whole ones, not thousandths.
fn shown(resource: &ResourceStatus, amount: u64) -> f64 {
    let amount = amount as f64;
    if resource.unit == Unit::Thousandths { amount / 1000.0 } else { amount }
}

impl Collector for Scheduler {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let status = self.status();
        let mut page = Page::new(encoder);
        let of_machine = status.resources.iter().map(|resource| ("machine", resource));
        let of_devices = status
            .devices
            .iter()
            .flat_map(|device| device.resources.iter().map(|resource| (&*device.name, resource)));
        let resources: Vec<(&str, &ResourceStatus)> = of_machine.chain(of_devices).collect();
        let labelled = |amount: fn(&ResourceStatus) -> u64| {
            resources.iter().map(move |(place, resource)| {
                let labels = [("place", *place), ("resource", &*resource.name)];
                (labels, shown(resource, amount(resource)))
            })
        };
        page.gauges("flow_scheduler_capacity", "What there is", labelled(|resource| resource.capacity))?;
        page.gauges("flow_scheduler_reserved", "What is reserved", labelled(|resource| resource.reserved))?;
        page.gauge("flow_scheduler_waiting", "Work that waits", Some(status.waiting as f64))?;
        let oldest = status.oldest.unwrap_or_default().as_secs_f64();
        page.gauge("flow_scheduler_oldest_age_seconds", "Age of the oldest waiting work", Some(oldest))?;
        page.gauge("flow_scheduler_running", "Reservations that are held", Some(status.running as f64))?;
        let pressure = status.pressure as u8;
        let help = "Pressure on memory: 0 none, 1 starts are slowed, 2 nothing starts";
        page.gauge("flow_scheduler_pressure", help, Some(pressure.into()))?;
        page.histogram("flow_scheduler_wait_seconds", "How long work waited that started", &status.waits)
    }
}
