//! Whether this machine has an OpenCL device to test with.

/// Whether there is one. Where there is none, this says so and whatever asks shows nothing; it fails where `REQUIRE_OPENCL`
/// says that there has to be one.
#[expect(clippy::disallowed_methods, reason = "a switch for whoever runs the tests, not configuration")]
pub(crate) fn is_there() -> bool {
    let found = memory::devices::devices();
    if let Err(error) = &found {
        println!("nothing is shown on a device: {error}");
    }
    assert!(found.is_ok() || std::env::var_os("REQUIRE_OPENCL").is_none(), "{found:?}");
    found.is_ok()
}
