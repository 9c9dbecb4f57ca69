//! Requests with pictures on a tiny model that sees, stepped by hand.

mod stuck;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::FutureExt;
use memory::ladder::Writing;
use memory::rung::HostRung;
use memory::{Ladder, LadderSettings};
use models::vision::{Features, Frame, Grid, Tower, TowerShape};
use models::{LoadOptions, LoadedModel, Repository};
use protocol::{
    Chat, Clip, Content, Event, Failure, GenerateRequest, Image, Inference, Message, Part, Prompt, Refusal,
    TenantId,
};
use tensor::{Dtype, Isa, Kernels, TensorError};

use super::VisionSettings;
use super::attic::FeatureTier;
use super::gallery::Gallery;
use crate::tests::bench::{Bench, ManualClock, Transcript, settings};
use crate::tests::model::HashModel;
use crate::trace::{Entry, Recorder};
use crate::{Engine, EngineSettings};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../models/test_data/qwen3_vl/model");

/// What stands for a picture in that model's prompts.
const MARK: u32 = 326;

fn load() -> LoadedModel {
    let options = LoadOptions {
        dtype: Some(Dtype::F32),
        quantise: None,
        kv: None,
        max_batch_tokens: 128,
        max_outputs: 8,
    };
    models::load(&Repository::folder(MODEL).unwrap(), &options, tensor::kernels(Isa::best(), 1)).unwrap()
}

fn bench(model: LoadedModel, settings: EngineSettings) -> Bench {
    let clock = Arc::new(ManualClock::default());
    let (engine, run_loop) = Engine::assemble(model, settings, clock.clone()).unwrap();
    Bench { engine, run_loop, clock }
}

/// A picture of noise as a PNG file, without compression.
fn picture(width: u32, height: u32, seed: u32) -> Image {
    let mut raw = Vec::new();
    for row in 0..height {
        raw.push(0);
        raw.extend(
            (0..3 * width)
                .map(|at| ((row * 31 + at * 7 + seed * 101).wrapping_mul(2_654_435_761) >> 24) as u8),
        );
    }
    let mut data = vec![0x78, 1, 1];
    let length = u16::try_from(raw.len()).unwrap();
    data.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
    let adler = raw.iter().fold((1u32, 0u32), |(a, b), byte| {
        let a = (a + u32::from(*byte)) % 65521;
        (a, (b + a) % 65521)
    });
    data.extend(&raw);
    data.extend((adler.1 << 16 | adler.0).to_be_bytes());
    let header = [&width.to_be_bytes()[..], &height.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    for (kind, content) in [(b"IHDR", header), (b"IDAT", data), (b"IEND", Vec::new())] {
        let named = [&kind[..], &content].concat();
        bytes.extend((content.len() as u32).to_be_bytes());
        bytes.extend(&named);
        bytes.extend(crc(&named).to_be_bytes());
    }
    Image { bytes: bytes.into() }
}

fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 },
        )
    })
}

/// A request that shows `images` between texts.
fn showing(images: &[Image], seed: u32) -> GenerateRequest {
    let mut ids: Vec<u32> = (0..4 + seed % 9).map(|at| (at * 37 + seed * 11) % 300).collect();
    for at in 0..images.len() as u32 {
        ids.extend([MARK, 5 + at, 17]);
    }
    let mut request = GenerateRequest::new("seen", Prompt::Tokens(ids));
    request.images = images.to_vec();
    request.limits.max_tokens = Some(10 + seed % 4);
    request.limits.ignore_eos = true;
    request.sampling.temperature = Some(if seed.is_multiple_of(2) { 0.0 } else { 0.9 });
    request.sampling.seed = Some(u64::from(seed));
    request.logprobs = Some(1);
    request.choices = 1 + seed % 2;
    request
}

fn requests() -> Vec<GenerateRequest> {
    let [a, b, c] = [picture(40, 24, 1), picture(16, 16, 2), picture(64, 32, 3)];
    let shown: [&[Image]; 8] = [
        std::slice::from_ref(&a),
        &[],
        &[b.clone(), a.clone()],
        std::slice::from_ref(&c),
        std::slice::from_ref(&a),
        &[],
        &[c.clone(), b.clone(), c.clone()],
        &[b],
    ];
    shown.iter().zip(0..).map(|(images, seed)| showing(images, seed)).collect()
}

impl Bench {
    /// Asks and waits until the pictures are prepared, which other threads do.
    fn show(&self, request: GenerateRequest) -> Result<protocol::Generation, Refusal> {
        futures::executor::block_on(self.engine.generate(request))
    }

    fn held(&self) -> usize {
        self.run_loop.gallery.as_ref().map_or(0, |gallery| gallery.waiting())
    }
}

fn heard(generation: &mut protocol::Generation) -> Vec<Event> {
    use futures::StreamExt;
    std::iter::from_fn(|| generation.next().now_or_never().flatten()).collect()
}

/// Serves all together, or one after the other.
fn serve(mut bench: Bench, requests: &[GenerateRequest], together: usize) -> Vec<Transcript> {
    let mut transcripts = Vec::new();
    for group in requests.chunks(together) {
        let mut asked: Vec<_> = group.iter().map(|request| bench.show(request.clone()).unwrap()).collect();
        bench.finish();
        transcripts.extend(asked.iter_mut().map(|asked| Transcript::of(&heard(asked))));
    }
    assert_eq!(bench.run_loop.pages.pool().used(), 0);
    transcripts
}

fn narrow(pages: usize) -> EngineSettings {
    let vision = VisionSettings { share: 0.3, ..VisionSettings::default() };
    EngineSettings { name: "seeing".to_owned(), vision, ..settings(pages, 9, 5) }
}

#[test]
fn pictures_beside_others_give_the_same_bits_as_alone() {
    let requests = requests();
    let alone = serve(bench(load(), settings(40, 100, 8)), &requests, 1);
    for pages in [40, 9] {
        let together = serve(bench(load(), narrow(pages)), &requests, requests.len());
        assert_eq!(together, alone, "{pages} pages");
    }
    let [one, other] = [1, 2].map(|seed| showing(&[picture(40, 24, seed)], 2));
    let said = serve(bench(load(), narrow(40)), &[one, other], 2);
    assert_ne!(said[0].said, said[1].said, "another picture in the same text is another prompt");
}

/// The most prompt tokens of a step in which a stream writes, beside which a long prompt with or without a picture comes in.
fn most_beside_a_stream(images: &[Image], streams: usize) -> u64 {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let take = Arc::clone(&taken);
    let recorder = Recorder::new(move |entry| take.lock().unwrap().push(entry));
    let mut bench = bench(load(), EngineSettings { recorder: Some(recorder), ..settings(60, 100, 8) });
    let mut stream = showing(&[], 0);
    stream.limits.max_tokens = Some(40);
    let streams: Vec<_> = (0..streams).map(|_| bench.show(stream.clone()).unwrap()).collect();
    (0..3).for_each(|_| bench.step());
    let mut long = showing(images, 4);
    let Prompt::Tokens(ids) = &mut long.prompt else { panic!("tokens") };
    ids.extend((0..80).map(|at| at % 300));
    let asked = bench.show(long).unwrap();
    bench.finish();
    drop((streams, asked));
    let taken = taken.lock().unwrap();
    let steps = taken.iter().filter_map(|entry| match entry {
        Entry::Step(step) => Some(step.prompt),
        _ => None,
    });
    steps.max().unwrap()
}

#[test]
fn a_prompt_with_pictures_comes_in_parts_beside_streams() {
    let image = [picture(16, 16, 1)];
    assert!(most_beside_a_stream(&[], 1) >= 80, "a text may fill a step");
    assert!(most_beside_a_stream(&image, 0) >= 80, "nobody waits for a small one");
    let parts = most_beside_a_stream(&image, 1);
    assert!(parts <= 17, "{parts} tokens in a step while nothing is known of its time");
}

/// A request about pictures and clips, in this order.
fn watching(images: &[Image], clips: &[Clip]) -> GenerateRequest {
    let part = |kind: &str, text: Option<&str>| Part {
        kind: kind.to_owned(),
        fields: text.into_iter().map(|text| ("text".to_owned(), text.into())).collect(),
    };
    let stills = images.iter().map(|_| part("image", None));
    let moving = clips.iter().map(|_| part("video", None));
    let parts = stills.chain(moving).chain([part("text", Some("What?"))]).collect();
    let mut message = Message::text("user", "");
    message.content = Some(Content::Parts(parts));
    let chat = Chat { messages: vec![message], ..Chat::default() };
    let mut request = GenerateRequest::new("watching", Prompt::Chat(chat));
    (request.images, request.clips) = (images.to_vec(), clips.to_vec());
    request.limits.max_tokens = Some(8);
    request.limits.ignore_eos = true;
    request.sampling.temperature = Some(0.0);
    request
}

fn clip(frames: u32, fps: Option<f64>) -> Clip {
    Clip { frames: (0..frames).map(|frame| picture(16, 16, 40 + frame)).collect(), fps }
}

#[test]
fn a_trace_tells_what_the_tower_did_and_for_whom() {
    let taken = Arc::new(Mutex::new(Vec::new()));
    let take = Arc::clone(&taken);
    let recorder = Recorder::new(move |entry| take.lock().unwrap().push(entry));
    let settings = EngineSettings { recorder: Some(recorder), ..narrow(40) };
    let image = picture(64, 32, 1);
    let requests = [showing(std::slice::from_ref(&image), 2), showing(&[], 2), showing(&[image], 2)];
    serve(bench(load(), settings), &requests, 1);
    let taken = taken.lock().unwrap();
    let asked: Vec<u64> = taken
        .iter()
        .filter_map(|entry| match entry {
            Entry::End(end) => Some(end.vision),
            _ => None,
        })
        .collect();
    let done: u64 = taken
        .iter()
        .filter_map(|entry| match entry {
            Entry::Step(step) => Some(step.vision),
            _ => None,
        })
        .sum();
    assert!(asked[0] > 0 && asked[1..] == [0, 0], "{asked:?}: what has been seen is not looked at again");
    // Every slice counts as whole tokens.
    let slices = taken.iter().filter(|entry| matches!(entry, Entry::Step(step) if step.vision > 0)).count();
    assert!(
        (asked[0]..=asked[0] + slices as u64).contains(&done),
        "{done} in {slices} slices of {}",
        asked[0]
    );
}

#[test]
fn clips_are_read_step_by_step_and_give_the_same_bits_beside_others() {
    let image = picture(16, 16, 1);
    let requests = [
        watching(&[], &[clip(4, Some(4.0))]),
        watching(std::slice::from_ref(&image), &[clip(3, None)]),
        showing(std::slice::from_ref(&image), 4),
        watching(&[], &[clip(2, None)]),
        watching(&[], &[clip(4, Some(2.0))]),
    ];
    let alone = serve(bench(load(), settings(60, 100, 8)), &requests, 1);
    assert_eq!(serve(bench(load(), narrow(40)), &requests, requests.len()), alone);
    assert_ne!(alone[0].said, alone[4].said, "the same frames at another pace are another prompt");

    let mut bench = bench(load(), settings(60, 100, 8));
    let mut tokens = |request: &GenerateRequest| {
        let mut asked = bench.show(request.clone()).unwrap();
        bench.finish();
        let encoded = bench.engine.status().vision.unwrap().encoded;
        match heard(&mut asked).pop() {
            Some(Event::Done { usage, .. }) => (usage.prompt_tokens, encoded),
            end => panic!("{end:?}"),
        }
    };
    let (one, first) = tokens(&watching(&[], &[clip(2, None)]));
    let (two, second) = tokens(&watching(&[], &[clip(4, None)]));
    assert_eq!((first, second), (1, 3), "the tower reads a step of two frames at a time");
    assert!(two > one, "each step has tokens of its own, {two} and {one}");
    let (_, third) = tokens(&watching(&[], &[clip(4, Some(7.0))]));
    assert_eq!(third, 3, "the pace changes no picture, so nothing is read again");
}

#[test]
fn features_that_leave_memory_come_back_to_their_tenant() {
    let ladder = LadderSettings { writing: Writing::Through, ..LadderSettings::default() };
    let ladder = Ladder::open(&ladder, Some(Arc::new(HostRung::new()))).unwrap();
    let mut small = settings(60, 100, 8);
    // Room for the features of one or two pictures.
    small.vision.feature_bytes = 8_000;
    small.vision.below = Some(FeatureTier::new(ladder));
    let mut bench = bench(load(), small);
    let images: Vec<Image> = (0..6).map(|seed| picture(32, 32, seed)).collect();
    let mut ask = |image: &Image, tenant: &str| {
        let mut request = showing(std::slice::from_ref(image), 4);
        request.tenant = TenantId(tenant.to_owned());
        let mut asked = bench.show(request).unwrap();
        bench.finish();
        let said = Transcript::of(&heard(&mut asked)).said;
        let vision = bench.engine.status().vision.unwrap();
        assert!(vision.feature_bytes <= 8_000, "{} bytes", vision.feature_bytes);
        (said, vision.encoded, vision.prepared)
    };
    let first: Vec<_> = images.iter().map(|image| ask(image, "a").0).collect();
    for (image, first) in images.iter().zip(&first) {
        let (said, encoded, prepared) = ask(image, "a");
        assert_eq!((&said, encoded), (first, 6), "the same bits, and nothing is read again");
        assert!(prepared <= 7, "what was kept is not even decoded, but {prepared} were");
    }
    let (said, encoded, _) = ask(&images[0], "b");
    assert_eq!((&said, encoded), (&first[0], 7), "another tenant's picture is read anew");
}

#[test]
fn clips_that_cannot_be_shown_are_refused_with_advice() {
    let refused = |bench: &Bench, request: GenerateRequest, told: &str| {
        let refusal = bench.show(request).err().map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(refusal.contains(told), "'{refusal}' lacks '{told}'");
    };
    let mut model = load();
    let able = bench(load(), narrow(40));
    let mut unequal = clip(4, None);
    unequal.frames[2] = picture(16, 24, 1);
    refused(&able, watching(&[], &[clip(2, None), unequal]), "video 2: frame 2 of the clip is 16x24");
    refused(&able, watching(&[], &[clip(1, None)]), "video 1: the clip has 1 frames, and at least 2");
    refused(&able, watching(&[], &[clip(2, Some(0.0))]), "the rate must be a positive number");
    refused(&able, watching(&[], &[clip(120, None)]), "the model's context holds 160 tokens");
    let mut text = watching(&[], &[clip(2, None)]);
    text.prompt = Prompt::Text("no place".to_owned());
    refused(&able, text, "has not the 1 places for the 1 videos");
    if let Some(vision) = &mut model.vision {
        vision.clips = None;
    }
    refused(&bench(model, narrow(40)), watching(&[], &[clip(2, None)]), "do not say how videos are read");
    let blind = Bench::new(HashModel::default(), settings(10, 8, 4));
    refused(&blind, watching(&[], &[clip(2, None)]), "cannot see");
}

#[test]
fn a_picture_is_read_once_for_a_tenant_and_its_pages_are_shared_by_content() {
    let mut bench = bench(load(), settings(60, 100, 8));
    let (one, other) = (picture(64, 32, 1), picture(64, 32, 2));
    let mut usage = |image: &Image, tenant: &str| {
        let mut request = showing(std::slice::from_ref(image), 4);
        request.tenant = TenantId(tenant.to_owned());
        let mut asked = [bench.show(request.clone()).unwrap(), bench.show(request).unwrap()];
        bench.finish();
        let cached = asked.each_mut().map(|asked| match heard(asked).pop() {
            Some(Event::Done { usage, .. }) => usage.cached_tokens,
            end => panic!("{end:?}"),
        });
        let vision = bench.engine.status().vision.unwrap();
        (cached[0], vision.encoded, vision.feature_hits)
    };
    assert_eq!(usage(&one, "a"), (0, 1, 0), "both requests wait for one reading");
    assert_eq!(usage(&one, "a"), (32, 1, 2), "the next ones find it, and the first page of its tokens");
    assert_eq!(usage(&other, "a"), (0, 2, 2), "another picture shares no page with it");
    assert_eq!(usage(&one, "b"), (0, 3, 2), "nor does another tenant");
}

#[test]
fn what_cannot_be_shown_is_refused_with_advice() {
    let mut bench = bench(load(), narrow(40));
    let image = picture(16, 16, 1);
    let refused = |request: GenerateRequest, told: &str| {
        let refusal = bench.show(request).err().map(|refusal| refusal.to_string()).unwrap_or_default();
        assert!(refusal.contains(told), "'{refusal}' lacks '{told}'");
    };
    let mut more = showing(std::slice::from_ref(&image), 0);
    more.images.push(image.clone());
    refused(more, "has room for 1 pictures, and 2 were given");
    refused(showing(&vec![image.clone(); 65], 0), "at most 64 images are read in one request, got 65");
    let torn = Image { bytes: image.bytes[..image.bytes.len() / 2].into() };
    refused(showing(&[image.clone(), torn], 0), "image 2: the PNG image cannot be decoded");
    refused(showing(&[Image { bytes: [1, 2, 3][..].into() }], 0), "image 1: the image is neither PNG");
    refused(showing(&vec![picture(64, 32, 1); 5], 0), "the model's context holds 160 tokens");
    let status = bench.engine.status();
    assert_eq!(status.load.queued, 0, "nothing is left of what was refused");
    assert_eq!(status.vision.unwrap().prepared, 1, "what does not fit is not decoded");
    let blind = Bench::new(HashModel::default(), settings(10, 8, 4));
    let refusal = blind.show(showing(&[image], 0)).unwrap_err().to_string();
    assert!(refusal.contains("cannot see"), "{refusal}");
    bench.finish();
}

#[test]
fn who_leaves_at_any_stage_leaves_nothing_behind() {
    let images = [picture(64, 32, 1), picture(40, 24, 2)];
    for steps in 0..40 {
        let mut bench = bench(load(), narrow(40));
        let stays = bench.show(showing(&images[..1], 2)).unwrap();
        let leaves = bench.show(showing(&images, 7)).unwrap();
        (0..steps).for_each(|_| bench.step());
        drop(leaves);
        bench.finish();
        assert_eq!((bench.held(), bench.run_loop.pages.pool().used()), (0, 0), "after {steps} steps");
        let gallery = bench.run_loop.gallery.as_ref().unwrap();
        assert!(gallery.has_room(usize::MAX), "no request holds features after {steps} steps");
        let mut stays = stays;
        assert!(matches!(heard(&mut stays).pop(), Some(Event::Done { .. })), "after {steps} steps");
    }
}

#[test]
fn memory_stays_within_its_bounds_whoever_comes() {
    let mut settings = narrow(60);
    // Room for two or three pictures' features, and for the patches of one.
    settings.vision =
        VisionSettings { feature_bytes: 20_000, patch_bytes: 5_000, ..VisionSettings::default() };
    let mut bench = bench(load(), settings);
    for round in 0..60 {
        let shown: Vec<Image> = (0..1 + round % 2).map(|at| picture(32, 32, round * 7 + at)).collect();
        let mut asked = [bench.show(showing(&shown, round)).unwrap()];
        bench.finish();
        assert!(asked.iter_mut().all(|asked| matches!(heard(asked).pop(), Some(Event::Done { .. }))));
        let kept = bench.engine.status().vision.unwrap().feature_bytes;
        assert!(kept <= 20_000, "{kept} bytes after {round} rounds");
    }
    assert_eq!(bench.engine.status().vision.unwrap().encoded, 90);
}

/// Fails at every picture with an odd number of patch rows of tokens.
struct Fragile(Box<dyn Tower>);

impl Tower for Fragile {
    fn shape(&self) -> TowerShape {
        self.0.shape()
    }

    fn twin(&self, kernels: Arc<dyn Kernels>) -> Box<dyn Tower> {
        Box::new(Self(self.0.twin(kernels)))
    }

    fn work(&self, grid: Grid) -> u64 {
        self.0.work(grid)
    }

    fn begin(&mut self, frame: Frame) -> Result<(), TensorError> {
        assert!(frame.grid.h != frame.grid.w, "a square");
        self.0.begin(frame)
    }

    fn advance(&mut self, work: u64) -> Option<Features> {
        self.0.advance(work)
    }

    fn abandon(&mut self) {
        self.0.abandon();
    }
}

#[test]
fn a_picture_that_breaks_the_tower_fails_its_own_requests_only() {
    let mut model = load();
    model.vision = model.vision.map(|mut vision| {
        vision.tower = Box::new(Fragile(vision.tower));
        vision
    });
    let mut bench = bench(model, narrow(40));
    let [good, bad] = [picture(40, 24, 1), picture(32, 32, 2)];
    let mut asked =
        [&good, &bad, &good, &bad].map(|image| bench.show(showing(std::slice::from_ref(image), 2)).unwrap());
    bench.finish();
    let ends = asked.each_mut().map(|asked| heard(asked).pop());
    let failed = Some(Event::Failed(Failure::Engine { message: "a square".to_owned() }));
    assert!(ends[1] == failed && ends[3] == failed, "{ends:?}");
    assert!([0, 2].iter().all(|&at| matches!(ends[at], Some(Event::Done { .. }))), "{ends:?}");
    assert!(bench.run_loop.gallery.as_ref().unwrap().has_room(usize::MAX));
}

#[test]
fn a_slice_takes_no_more_than_its_share_of_the_target() {
    let model = load();
    let parameters = model.model.shape().parameters;
    let tower = model.vision.unwrap().tower;
    let token = parameters - tower.shape().parameters;
    let mut gallery = Gallery::new(tower, &VisionSettings::default(), parameters);
    let second = Some(Duration::from_secs(1));
    assert_eq!(gallery.allowance(10, None), 10 * token, "without streams as much as prompts would take");
    assert_eq!(gallery.allowance(10, second), token, "a small slice while the pace is not known");
    let about = |found: u64, expected: u64| assert!(found.abs_diff(expected) <= 1, "{found}, not {expected}");
    gallery.observe(1000, Duration::from_millis(10));
    about(gallery.allowance(100, second), (100 * token).min(100_000));
    about(gallery.allowance(1, second), token.min(100_000));
    (0..100).for_each(|_| gallery.observe(1000, Duration::from_secs(1)));
    about(gallery.allowance(100, second), 1000);
    assert_eq!((gallery.tokens(token), gallery.tokens(token + 1)), (1, 2));
}
