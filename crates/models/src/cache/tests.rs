//! What is kept is found again, is never wrong, is bounded, and stops no start.

use std::cell::{Cell, RefCell};
use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime};

use serde_json::json;
use tensor::{Dtype, Isa, KvArena};

use super::*;
use crate::tests::folder::Folder;
use crate::{
    Batch, EncoderBatch, LoadOptions, LoadedEncoder, LoadedModel, Loading, ModelError, Quantisation,
    Repository, Watch,
};

/// A folder on the disk, removed at the end.
pub(crate) struct Place(pub(crate) PathBuf);

impl Place {
    pub(crate) fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("tidegate-cache-{}-{count}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A model folder in it.
    fn model(&self, name: &str, folder: &Folder) -> Repository {
        let path = self.0.join(name);
        fs::create_dir_all(&path).unwrap();
        for (file, content) in folder.contents() {
            fs::write(path.join(file), content).unwrap();
        }
        Repository::open(path).unwrap()
    }

    fn cache(&self, budget: u64) -> PackedCache {
        PackedCache::new(self.0.join("cache"), budget)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// Remembers what it is told, and stops after so many layers.
#[derive(Default)]
struct Memory {
    complaints: RefCell<Vec<String>>,
    layers: Cell<usize>,
    stop_after: Option<usize>,
}

impl Watch for Memory {
    fn packed(&self, done: u64, total: u64) -> ControlFlow<()> {
        assert!(0 < done && done <= total);
        self.layers.set(self.layers.get() + 1);
        if self.stop_after == Some(self.layers.get()) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    }

    fn cache_failed(&self, error: &CacheError) {
        self.complaints.borrow_mut().push(format!("{error}; {}", error.consequence()));
    }
}

const HELD: [(Option<Dtype>, Option<Quantisation>); 3] =
    [(Some(Dtype::F32), None), (Some(Dtype::Bf16), None), (Some(Dtype::Bf16), Some(Quantisation::INT4))];

fn folder() -> Folder {
    Folder::qwen3([48, 4, 2, 12], json!({"tie_word_embeddings": true, "attention_bias": true}), 5)
}

fn load_on(
    isa: Isa,
    repository: &Repository,
    (dtype, quantise): (Option<Dtype>, Option<Quantisation>),
    loading: Loading<'_>,
) -> Result<LoadedModel, ModelError> {
    let options = LoadOptions { dtype, quantise, kv: None, max_batch_tokens: 16, max_outputs: 16 };
    crate::load_with(repository, &options, tensor::kernels(isa, 2), loading)
}

/// Loads with a cache and returns logits and complaints.
fn logits(
    repository: &Repository,
    held: (Option<Dtype>, Option<Quantisation>),
    cache: Option<&PackedCache>,
) -> (Vec<u32>, Vec<String>) {
    let watch = Memory::default();
    let mut loaded =
        load_on(Isa::best(), repository, held, Loading { watch: &watch, cache, weight_memory: None })
            .unwrap();
    let mut kv = KvArena::new(loaded.model.shape().kv, 1).unwrap();
    let mut batch = Batch::default();
    batch.push(&[3, 1, 4, 1, 5], 0, &[0]);
    batch.outputs.extend(0..5);
    let logits = loaded.model.forward(&batch, &mut kv).logits.iter().map(|logit| logit.to_bits()).collect();
    (logits, watch.complaints.into_inner())
}

/// The layers that packed weights hold, to see whether they were kept or made again.
fn names(cache: &PackedCache) -> Vec<(PathBuf, u64)> {
    let mut names: Vec<_> =
        cache.entries().unwrap().into_iter().map(|entry| (entry.path, entry.bytes)).collect();
    names.sort();
    names
}

#[test]
fn kept_weights_give_the_same_bits_and_are_not_packed_again() {
    let place = Place::new();
    let (repository, cache) = (place.model("tiny", &folder()), place.cache(1 << 30));
    for held in HELD {
        let expected = logits(&repository, held, None);
        assert_eq!(logits(&repository, held, Some(&cache)), expected);
        let kept = names(&cache);
        let written = fs::metadata(&kept[0].0).unwrap().ino();
        assert_eq!(logits(&repository, held, Some(&cache)), expected);
        // A file that was made again would be another one.
        assert_eq!((names(&cache), fs::metadata(&kept[0].0).unwrap().ino()), (kept, written));
    }
    assert_eq!(names(&cache).len(), HELD.len());
    let first = names(&cache)[0].0.file_name().unwrap().to_string_lossy().into_owned();
    assert!(first.starts_with("tiny-bf16-"), "{first}");
    // What every instruction set reads is kept once.
    for isa in Isa::available() {
        drop(
            load_on(isa, &repository, HELD[2], Loading { cache: Some(&cache), ..Loading::default() })
                .unwrap(),
        );
    }
    assert_eq!(names(&cache).len(), HELD.len());
    assert!(cache.clear().unwrap() > 0);
    assert!(names(&cache).is_empty());
}

#[test]
fn damaged_files_are_made_again() {
    let place = Place::new();
    let (repository, cache) = (place.model("tiny", &folder()), place.cache(1 << 30));
    let (expected, _) = logits(&repository, HELD[2], Some(&cache));
    let (path, length) = names(&cache).remove(0);
    let sound = fs::read(&path).unwrap();
    let check = |broken: Vec<u8>, word: &str| {
        fs::write(&path, &broken).unwrap();
        let (found, complaints) = logits(&repository, HELD[2], Some(&cache));
        assert_eq!(found, expected);
        assert!(complaints.len() == 1 && complaints[0].contains(word), "{word}: {complaints:?}");
        assert_eq!(fs::read(&path).unwrap(), sound, "{word}: the file is whole again");
    };
    let turned = |at: usize| {
        let mut bytes = sound.clone();
        bytes[at] ^= 0x10;
        bytes
    };
    check(turned(0), "no file of packed weights");
    check(turned(5000), "is damaged; packing the weights again");
    check(turned(length as usize - 40), "directory is damaged");
    check(turned(length as usize - 4), "layout has version");
    check(sound[..5000].to_vec(), "no file of packed weights");
    check(Vec::new(), "no file of packed weights");
    check(vec![0xff; 70_000], "no file of packed weights");
}

#[test]
fn another_file_or_type_is_another_model() {
    let place = Place::new();
    let (cache, other) = (
        place.cache(1 << 30),
        Folder::qwen3([48, 4, 2, 12], json!({"tie_word_embeddings": true, "attention_bias": true}), 6),
    );
    let repository = place.model("tiny", &folder());
    logits(&repository, HELD[1], Some(&cache));
    // The same length and the same names, other numbers.
    let repository = place.model("tiny", &other);
    let (expected, _) = logits(&repository, HELD[1], None);
    assert_eq!(logits(&repository, HELD[1], Some(&cache)), (expected.clone(), vec![]));
    assert_eq!(names(&cache).len(), 2);
    // A file under the name of another one is found out by the key inside.
    let (first, second) = (names(&cache)[0].0.clone(), names(&cache)[1].0.clone());
    let bytes = [&first, &second].map(|path| fs::read(path).unwrap());
    fs::write(&first, &bytes[1]).unwrap();
    fs::write(&second, &bytes[0]).unwrap();
    let (found, complaints) = logits(&repository, HELD[1], Some(&cache));
    assert_eq!(found, expected);
    assert!(complaints[0].contains("made of other files or another type"), "{complaints:?}");
}

#[test]
fn the_least_recently_used_goes_first_and_the_budget_holds() {
    let place = Place::new();
    let roomy = place.cache(1 << 30);
    let repository = place.model("tiny", &folder());
    let one = |held, cache: &PackedCache| logits(&repository, held, Some(cache)).1;
    for (held, age) in [(HELD[2], 300), (HELD[1], 200)] {
        one(held, &roomy);
        let newest = roomy.entries().unwrap().remove(0);
        let then = SystemTime::now() - Duration::from_secs(age);
        File::options().append(true).open(&newest.path).unwrap().set_modified(then).unwrap();
    }
    let [bf16, int4] = [0, 1].map(|at| roomy.entries().unwrap()[at].clone());
    assert!(int4.used < bf16.used);
    // Starting from the older one makes it the newer one.
    one(HELD[2], &roomy);
    assert_eq!(roomy.entries().unwrap()[0].path, int4.path);
    let left = roomy.folder().join("x.unfinished");
    fs::write(&left, "what a killed process left").unwrap();
    let long_ago = SystemTime::now() - 2 * ABANDONED;
    File::options().append(true).open(&left).unwrap().set_modified(long_ago).unwrap();

    let tight = place.cache(3 * bf16.bytes);
    assert_eq!(one(HELD[0], &tight), Vec::<String>::new());
    let paths: Vec<PathBuf> = tight.entries().unwrap().into_iter().map(|entry| entry.path).collect();
    assert!(!paths.contains(&bf16.path) && paths.contains(&int4.path), "{paths:?}");
    assert!(tight.entries().unwrap().iter().map(|entry| entry.bytes).sum::<u64>() <= 3 * bf16.bytes);
    assert!(!left.exists());

    let tiny = place.cache(bf16.bytes / 2);
    let complaints = one(HELD[1], &tiny);
    assert!(complaints.len() == 1 && complaints[0].contains("larger than the"), "{complaints:?}");
    assert!(tiny.files(UNFINISHED).unwrap().is_empty());
}

#[test]
fn what_cannot_be_written_or_was_stopped_leaves_nothing() {
    let place = Place::new();
    let repository = place.model("tiny", &folder());
    fs::write(place.0.join("file"), "").unwrap();
    let cache = PackedCache::new(place.0.join("file/cache"), 1 << 30);
    let (found, complaints) = logits(&repository, HELD[1], Some(&cache));
    assert_eq!(found, logits(&repository, HELD[1], None).0);
    assert!(complaints.iter().any(|said| said.contains("going on without")), "{complaints:?}");

    let cache = place.cache(1 << 30);
    let watch = Memory { stop_after: Some(3), ..Memory::default() };
    let stopped = load_on(
        Isa::best(),
        &repository,
        HELD[1],
        Loading { watch: &watch, cache: Some(&cache), weight_memory: None },
    );
    assert!(matches!(stopped, Err(ModelError::Stopped)));
    assert_eq!(watch.layers.get(), 3);
    assert!(cache.files(ENDING).unwrap().is_empty() && cache.files(UNFINISHED).unwrap().is_empty());
}

#[test]
fn loaders_at_the_same_time_do_not_disturb_each_other() {
    let place = Place::new();
    let (repository, cache) = (place.model("tiny", &folder()), place.cache(1 << 30));
    let (expected, _) = logits(&repository, HELD[2], None);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..3 {
                    assert_eq!(logits(&repository, HELD[2], Some(&cache)), (expected.clone(), vec![]));
                }
            });
        }
    });
    assert_eq!(names(&cache).len(), 1);
    assert!(cache.files(UNFINISHED).unwrap().is_empty());
}

/// Logits of passes one after the other, some of which want none, with so much memory for weights.
fn streamed(
    repository: &Repository,
    held: (Option<Dtype>, Option<Quantisation>),
    (cache, weight_memory): (Option<&PackedCache>, Option<usize>),
) -> Result<(Vec<u32>, Option<tensor::packed::streamed::StreamedWeights>), ModelError> {
    let loading = Loading { cache, weight_memory, ..Loading::default() };
    let mut loaded = load_on(Isa::best(), repository, held, loading)?;
    let mut kv = KvArena::new(loaded.model.shape().kv, 1).unwrap();
    let mut found = Vec::new();
    for (first, tokens, wanted) in
        [(0, &[3, 1, 4][..], 0..3), (3, &[1, 5], 0..0), (5, &[9], 0..1), (6, &[2, 6, 5], 2..3)]
    {
        let mut batch = Batch::default();
        batch.push(tokens, first, &[0]);
        batch.outputs.extend(wanted);
        found.extend(loaded.model.forward(&batch, &mut kv).logits.iter().map(|logit| logit.to_bits()));
    }
    Ok((found, loaded.streamed))
}

/// Deep enough for a part of it to be small.
fn deep() -> Folder {
    let settings = json!({"tie_word_embeddings": true, "attention_bias": true, "num_hidden_layers": 7});
    Folder::qwen3([48, 4, 2, 12], settings, 5)
}

#[test]
fn weights_that_are_read_when_they_are_needed_give_the_same_bits() {
    let place = Place::new();
    let (repository, cache) = (place.model("tiny", &deep()), place.cache(1 << 30));
    for held in HELD {
        let (expected, _) = streamed(&repository, held, (None, None)).unwrap();
        let run = |budget| {
            let (found, weights) = streamed(&repository, held, (Some(&cache), Some(budget))).unwrap();
            let weights = weights.unwrap().statistics();
            assert!(found == expected, "{held:?} in {budget} bytes");
            assert!(weights.held <= weights.budget && weights.budget <= budget, "{weights:?}");
            assert_eq!(weights.faults, 0);
            weights
        };
        // Packed on the way, and then found in the cache; all of it at once, and parts.
        let all = run(1 << 30).bytes;
        for budget in [3 * all / 4, all / 2] {
            let weights = run(budget);
            assert!(weights.held < all && weights.read > all as u64, "{weights:?}");
        }
        cache.clear().unwrap();
        run(all / 2);
        assert_eq!(logits(&repository, held, Some(&cache)), logits(&repository, held, None));
    }
}

/// What an encoder makes of some texts, one batch after the other.
fn encoded(
    folder: &str,
    (dtype, quantise): (Option<Dtype>, Option<Quantisation>),
    (cache, weight_memory): (Option<&PackedCache>, Option<usize>),
) -> Result<(Vec<u32>, LoadedEncoder), ModelError> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("test_data").join(folder).join("model");
    let options = LoadOptions { dtype, quantise, kv: None, max_batch_tokens: 64, max_outputs: 1 };
    let loading = Loading { cache, weight_memory, ..Loading::default() };
    let kernels = tensor::kernels(Isa::best(), 2);
    let mut loaded = crate::load_encoder_with(&Repository::open(path)?, &options, kernels, loading)?;
    let mut found = Vec::new();
    for texts in [&["the tide comes in", "high water"][..], &["a boat"], &["noon", "low", "tide"]] {
        let mut batch = EncoderBatch::default();
        for text in texts {
            batch.push(&loaded.reader.read("", text)?);
        }
        found.extend(loaded.run(&batch).iter().map(|number| number.to_bits()));
    }
    Ok((found, loaded))
}

#[test]
fn encoders_are_kept_and_read_when_they_are_needed_with_the_same_bits() {
    let place = Place::new();
    let cache = place.cache(1 << 30);
    for (folder, held) in
        ["bert", "cross_encoder", "roberta"].into_iter().flat_map(|one| HELD.map(|held| (one, held)))
    {
        let (expected, whole) = encoded(folder, held, (None, None)).unwrap();
        assert!(whole.streamed.is_none() && whole.twin(tensor::kernels(Isa::best(), 1)).is_some());
        let (packed, _) = encoded(folder, held, (Some(&cache), None)).unwrap();
        let kept = names(&cache);
        let written = fs::metadata(&kept[0].0).unwrap().ino();
        assert_eq!(kept.len(), 1);
        let (found, again) = encoded(folder, held, (Some(&cache), None)).unwrap();
        assert!(packed == expected && found == expected, "{folder} {held:?}");
        assert_eq!(again.weight_bytes(), whole.weight_bytes());
        assert_eq!(fs::metadata(&kept[0].0).unwrap().ino(), written, "it is not packed again");
        let run = |budget| {
            let (found, loaded) = encoded(folder, held, (Some(&cache), Some(budget))).unwrap();
            assert!(found == expected, "{folder} {held:?} in {budget} bytes");
            assert!(loaded.twin(tensor::kernels(Isa::best(), 1)).is_none());
            let weights = loaded.streamed.as_ref().unwrap().statistics();
            assert_eq!((loaded.weight_bytes(), weights.faults), (weights.budget, 0));
            assert!(weights.held <= weights.budget && weights.budget <= budget, "{weights:?}");
            weights
        };
        let all = run(1 << 30).budget;
        let some = run(3 * all / 4);
        assert!(some.held < all && some.read > all as u64, "{folder} {held:?} {some:?}");
        cache.clear().unwrap();
        // Packed for the purpose, with nothing there before.
        run(3 * all / 4);
        cache.clear().unwrap();
    }
    let refused = encoded("bert", HELD[0], (None, Some(1 << 20))).map(drop).unwrap_err().to_string();
    assert!(refused.contains("leave out --no-cache"), "{refused}");
}

#[test]
fn what_is_streamed_needs_a_cache_and_room_for_a_few_pieces() {
    let place = Place::new();
    let repository = place.model("tiny", &deep());
    let error = |cache: Option<&PackedCache>, budget| {
        streamed(&repository, HELD[1], (cache, Some(budget))).map(drop).unwrap_err().to_string()
    };
    assert!(error(None, 1 << 20).contains("leave out --no-cache"));
    let small = error(Some(&place.cache(1000)), 1 << 20);
    assert!(small.contains("larger than the 1000 bytes") && small.contains("--cache-size"), "{small}");
    let cache = place.cache(1 << 30);
    let refused = error(Some(&cache), 10_000);
    assert!(refused.contains("a memory of 10000 bytes is too small"), "{refused}");
    // A damaged file is packed again as without streaming.
    let (expected, _) = streamed(&repository, HELD[1], (Some(&cache), Some(250_000))).unwrap();
    let (path, _) = names(&cache).remove(0);
    let mut bytes = fs::read(&path).unwrap();
    bytes[5000] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert!(streamed(&repository, HELD[1], (Some(&cache), Some(250_000))).unwrap().0 == expected);
}
