//! A server that sees, under conversations about pictures, good and spoilt, of clients that stay and that leave.

use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicUsize;

use anyhow::Result;
use futures::future::join_all;
use serde_json::json;

use super::client::Heard;
use super::mix::{Chance, Mix, TENANTS, Tier, Wish};
use super::server::Server;
use super::tally::{Bar, Tally};
use super::{GROWTH, SEQUENCES, mib, settled, try_all, work_off};
use crate::tree::root;

/// Requests that may wait: more than there are clients.
const PATIENT: usize = 64;
/// So small that what is kept on purpose is full after the first tenth, and whatever grows from then on is a leak.
const BOUNDS: [&str; 4] = ["--vision-cache", "512KiB", "--kv-memory", "4MiB"];
/// Requests of a hundred whose picture cannot be read, and whose clients leave.
const SPOILT: u64 = 10;
const LEAVING: u64 = 10;
/// Requests of a hundred about one of a few pictures that were shown before.
const AGAIN: u64 = 25;
const KNOWN: u64 = 16;
/// The longer side of a picture at most.
const SIDE: u64 = 160;

/// Asks about so many pictures; all must end, and memory must stay what it was after the first tenth.
pub(super) async fn soak(binary: &Path, count: usize, seed: u64) -> Result<Vec<Bar>> {
    let mut server = Server::start((binary, Some(&model())), PATIENT, &BOUNDS).await?;
    let first = ask_all(&server, &mix(seed ^ 0xd0, count.div_ceil(10))).await?;
    let before = server.resident()?;
    let tally = Tally::of(ask_all(&server, &mix(seed ^ 0xd1, count)).await?);
    let grown = server.resident()?.saturating_sub(before);
    let all = Tally::of([first, tally.heard().to_vec()].concat());
    let mut bars = vec![
        Bar::none("requests about pictures whose reply ended in no way or in two", tally.unended()),
        Bar::none("requests about pictures that failed", tally.failed()),
        Bar::none("spoilt pictures that were not told so", tally.unchecked()),
    ];
    bars.extend(settled(&server, &all).await?);
    let what = "memory held more after all pictures than after the first tenth, in MiB";
    bars.push(Bar::most(what, mib(grown), mib(GROWTH)));
    server.stop()?;
    Ok(bars)
}

/// The smallest model that sees, which the tests of models have.
fn model() -> PathBuf {
    root().join("crates/models/test_data/qwen3_vl/model")
}

async fn ask_all(server: &Server, mix: &Mix) -> Result<Vec<Heard>> {
    let next = AtomicUsize::new(0);
    try_all(join_all((0..SEQUENCES).map(|_| work_off(server, mix, &next))).await)
}

fn mix(seed: u64, count: usize) -> Mix {
    let mut chance = Chance(seed);
    Mix::of((0..count).map(|_| wish(&mut chance)).collect())
}

fn wish(chance: &mut Chance) -> Wish {
    let shown = if chance.below(100) < AGAIN { Chance(chance.below(KNOWN)).next() } else { chance.next() };
    let mut file = picture(&mut Chance(shown));
    let is_malformed = chance.below(100) < SPOILT;
    if is_malformed {
        spoil(chance, &mut file);
    }
    let max_tokens = 4 + chance.below(12);
    let body = json!({
        "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": format!("data:image/png;base64,{}", base64(&file))}},
            {"type": "text", "text": format!("w{}?", chance.below(99))},
        ]}],
        "max_tokens": max_tokens, "temperature": 1, "ignore_eos": true, "stream": true,
        "stream_options": {"include_usage": true}, "seed": chance.below(1 << 40),
    });
    Wish {
        tenant: chance.below(TENANTS.len() as u64) as usize,
        tier: Tier::Normal,
        path: "/v1/chat/completions",
        body: body.to_string(),
        leaves_after: (chance.below(100) < LEAVING).then(|| chance.below(max_tokens) as usize),
        is_malformed,
    }
}

/// Takes away the end, or makes the header say what is not so; nothing of it can be read.
fn spoil(chance: &mut Chance, file: &mut Vec<u8>) {
    match chance.below(4) {
        0 => file.truncate(20),
        1 => file[16] = 0x7f,
        2 => file[1] = b'Q',
        _ => file[25] = 9,
    }
}

/// Noise as a PNG file without compression (RFC 1950, 1951; PNG 1.2), so that nothing is needed to write it.
fn picture(chance: &mut Chance) -> Vec<u8> {
    let [width, height] = [(); 2].map(|()| 8 + chance.below(SIDE - 8) as usize);
    let mut raw = Vec::with_capacity(height * (1 + 3 * width));
    for _ in 0..height {
        raw.push(0);
        raw.extend((0..3 * width).map(|_| chance.below(256) as u8));
    }
    let mut data = vec![0x78, 1];
    let blocks = raw.chunks(0xffff);
    let last = blocks.len() - 1;
    for (at, block) in blocks.enumerate() {
        data.push(u8::from(at == last));
        data.extend((block.len() as u16).to_le_bytes());
        data.extend((!(block.len() as u16)).to_le_bytes());
        data.extend(block);
    }
    let (low, high) = raw.iter().fold((1u32, 0u32), |(low, high), byte| {
        let low = (low + u32::from(*byte)) % 65521;
        (low, (high + low) % 65521)
    });
    data.extend((high << 16 | low).to_be_bytes());
    let sides = [width as u32, height as u32].map(u32::to_be_bytes).concat();
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in
        [(b"IHDR", [sides, vec![8, 2, 0, 0, 0]].concat()), (b"IDAT", data), (b"IEND", Vec::new())]
    {
        let named = [&kind[..], &content].concat();
        file.extend((content.len() as u32).to_be_bytes());
        file.extend(&named);
        file.extend(crc(&named).to_be_bytes());
    }
    file
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            1 => crc >> 1 ^ 0xedb8_8320,
            _ => crc >> 1,
        })
    })
}

/// RFC 4648.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits =
            (0..3).fold(0usize, |bits, at| bits << 8 | usize::from(three.get(at).copied().unwrap_or(0)));
        for digit in 0..4 {
            let is_there = digit <= three.len();
            text.push(if is_there { char::from(DIGITS[bits >> (18 - 6 * digit) & 63]) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pictures_are_the_same_for_the_same_seed_and_some_come_again() {
        let bodies =
            |seed| -> Vec<String> { mix(seed, 200).wishes().iter().map(|wish| wish.body.clone()).collect() };
        assert_eq!(bodies(5), bodies(5));
        assert_ne!(bodies(5), bodies(6));
        let spoilt = mix(5, 200).wishes().iter().filter(|wish| wish.is_malformed).count();
        assert!((8..40).contains(&spoilt), "{spoilt}");
        let url = |body: &String| {
            body.split("base64,").nth(1).and_then(|rest| Some(rest.split('"').next()?.to_owned()))
        };
        let shown: std::collections::BTreeSet<_> = bodies(5).iter().map(url).collect();
        assert!((120..190).contains(&shown.len()), "{}", shown.len());
        assert_eq!(
            (base64(b"any"), base64(b"an"), base64(b"a")),
            ("YW55".into(), "YW4=".into(), "YQ==".into())
        );
        assert_eq!(crc(b"IEND"), 0xae42_6082);
    }
}
