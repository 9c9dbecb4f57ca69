//! Needs as people write them.

use super::Needs;
use crate::scheduler::{Device, Inventory};

fn inventory() -> Inventory {
    Inventory::new()
        .memory(64 << 30)
        .cpu(8000)
        .slots("kv_blocks", 8192)
        .device(Device::new("gpu", "gpu0").memory(80 << 30).slots("streams", 4))
        .device(Device::new("gpu", "gpu1").memory(40 << 30))
}

#[test]
fn what_is_written_is_meant_exactly() {
    let check = |text: &str, expected: Needs| assert_eq!(inventory().needs(text), Ok(expected), "{text}");
    check("", Needs::new());
    check("{}", Needs::new());
    check("memory: 2GB", Needs::new().memory(2_000_000_000));
    check("memory=2GiB,cpu=0.25", Needs::new().memory(1 << 31).cpu(250));
    check("{\"memory\": \"2GB\", \"gpu\": true}", Needs::new().memory(2_000_000_000).devices("gpu", 1));
    check("gpu: 2", Needs::new().devices("gpu", 2));
    check("gpu: false", Needs::new().devices("gpu", 0));
    check("gpu: 0.5, gpu_memory: 10GB", Needs::new().with("gpu", 500).with("gpu_memory", 10_000_000_000));
    check(
        "  { \"kv_blocks\" : 16 , gpu_streams : 2 } ",
        Needs::new().with("kv_blocks", 16).with("gpu_streams", 2),
    );
}

#[test]
fn what_cannot_be_meant_is_refused_with_a_way_out() {
    let check = |text: &str, parts: &[&str]| {
        let message = inventory().needs(text).unwrap_err().to_string();
        parts.iter().for_each(|part| assert!(message.contains(part), "{text}: {message}"));
    };
    check("memroy: 2GB", &["no resource 'memroy'", "did you mean 'memory'?", "cpu", "kv_blocks"]);
    check("gpu_mem: 2GB", &["no resource 'gpu_mem'", "gpu_memory"]);
    check("tpu: true", &["no resource 'tpu'", "did you mean", "gpu"]);
    check("bandwidth: 3", &["no resource 'bandwidth'; the inventory has"]);
    check("memory: 2gb", &["memory: there is no unit 'gb'", "GiB"]);
    check("memory: true", &["memory: 'true' is no amount"]);
    check("cpu: true", &["cpu: 'true' is no amount"]);
    check("gpu: yes", &["gpu: 'yes' is no amount"]);
    check("gpu: -1", &["gpu: '-1' is no amount"]);
    check("kv_blocks: 1.5", &["not a whole number"]);
    check("memory: 1GB, memory: 1GB", &["'memory' is needed twice"]);
    for text in ["memory", "{memory: 1GB", "memory: 1GB,", "\"memory: 1GB", "a: {b: 1}", ": 1", "memory:"] {
        check(text, &["is no list of needs; write names with amounts"]);
    }
}
