//! Asks an x86-64 processor, and Linux, what they allow.

use std::arch::x86_64::{__cpuid, __cpuid_count, _xgetbv};

use super::{Isa, Machine, Vendor};

pub(super) fn machine() -> Machine {
    Machine { highest: highest(), vendor: vendor() }
}

/// Climbs the levels as far as each one is there, so that a later level always includes the earlier ones.
fn highest() -> Isa {
    let levels: [(Isa, fn() -> bool); 4] = [
        (Isa::Avx2, || {
            is_x86_feature_detected!("avx2")
                && is_x86_feature_detected!("fma")
                && is_x86_feature_detected!("popcnt")
        }),
        (Isa::Avx512, || {
            is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl")
        }),
        (Isa::Avx512Bf16, || is_x86_feature_detected!("avx512bf16")),
        (Isa::Amx, amx),
    ];
    let there = levels.into_iter().take_while(|(_, present)| present());
    there.last().map_or(Isa::Scalar, |(isa, _)| isa)
}

fn vendor() -> Vendor {
    let answer = __cpuid(0);
    let letters = [answer.ebx, answer.edx, answer.ecx].map(u32::to_le_bytes).concat();
    if letters == b"GenuineIntel" { Vendor::Intel } else { Vendor::Other }
}

/// The processor has tiles of bf16 and of bytes, the kernel saves them on a context switch, and it lets this process use them.
fn amx() -> bool {
    const XSAVE_ENABLED: u32 = 1 << 27;
    const AMX_BF16: u32 = 1 << 22;
    const AMX_TILE: u32 = 1 << 24;
    const AMX_INT8: u32 = 1 << 25;
    const TILE_STATE: u64 = 0b11 << 17;
    if __cpuid(0).eax < 7 || __cpuid(1).ecx & XSAVE_ENABLED == 0 {
        return false;
    }
    let tiles = AMX_BF16 | AMX_TILE | AMX_INT8;
    if __cpuid_count(7, 0).edx & tiles != tiles {
        return false;
    }
    // SAFETY: the operating system has enabled XSAVE, as CPUID said above, so `xgetbv` of register 0 is defined.
    let state = unsafe { enabled_state() };
    state & TILE_STATE == TILE_STATE && request_tiles()
}

/// The register states that the operating system saves (XCR0).
///
/// # Safety
/// CPUID must have said that the operating system enabled XSAVE.
#[target_feature(enable = "xsave")]
unsafe fn enabled_state() -> u64 {
    // SAFETY: XSAVE is enabled, which the caller promises, and register 0 is there whenever it is.
    unsafe { _xgetbv(0) }
}

/// Linux hands out the 8 KiB of tile state to processes that ask for it, and refuses when it has none to give.
#[cfg(target_os = "linux")]
fn request_tiles() -> bool {
    const ARCH_REQ_XCOMP_PERM: libc::c_long = 0x1023;
    const XFEATURE_XTILEDATA: libc::c_long = 18;
    // SAFETY: the call takes two numbers and changes nothing but this process's right to use the tiles; an old kernel
    // answers with an error.
    unsafe { libc::syscall(libc::SYS_arch_prctl, ARCH_REQ_XCOMP_PERM, XFEATURE_XTILEDATA) == 0 }
}

#[cfg(not(target_os = "linux"))]
fn request_tiles() -> bool {
    false
}
