//! Every reader on damaged files: made here, changed at random, read. No panic, no memory beyond what a file's size
//! explains, an error of one line, and nothing accepted that is not what the reader promises.
//!
//! `PROPTEST_CASES=100000 cargo test --release --test fuzz` goes on for longer, with other damage each time;
//! `docs/fuzzing.md` says what was run.

use std::alloc::{GlobalAlloc, Layout as Memory, System};
use std::cell::Cell;
use std::fs;
use std::io::Write;
use std::path::Path;

use curvkit::Result;
use curvkit::data::{
    Dataset, Layout, Selection, Split, Targets, Vocabulary, cifar10, mnist, read_directions, read_parameters,
    sst2, write_tensors,
};
use curvkit::net::{Model, Network, ZOO};
use curvkit::operators::DenseMatrix;
use curvkit::spectral::{Lanczos, LanczosOptions};
use flate2::{Compression, write::GzEncoder};
use kernels_tests::device::gpu;
use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::RngSeed;
use safetensors::{Dtype, tensor::TensorView};
use tempfile::TempDir;

// ------------------------------------------------------------------------------------------- memory

/// The system's allocator, which notes how much a thread holds at most.
struct Meter;

thread_local! {
    static HELD: Cell<[isize; 2]> = const { Cell::new([0, 0]) };
}

fn note(bytes: isize) {
    let _ = HELD.try_with(|held| {
        let [now, most] = held.get();
        held.set([now + bytes, most.max(now + bytes)]);
    });
}

// SAFETY: as the system's.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, memory: Memory) -> *mut u8 {
        note(memory.size() as isize);
        unsafe { System.alloc(memory) }
    }

    unsafe fn dealloc(&self, at: *mut u8, memory: Memory) {
        note(-(memory.size() as isize));
        unsafe { System.dealloc(at, memory) }
    }
}

#[global_allocator]
static METER: Meter = Meter;

/// What `read` gives, for which it may hold 40 bytes for each byte of the file, and a mebibyte.
fn within_bounds<T>(size: usize, read: impl FnOnce() -> Result<T>) -> Result<T> {
    let [before, _] = HELD.get();
    HELD.set([before, before]);
    let result = read();
    let most = HELD.get()[1] - before;
    assert!(most <= 40 * size as isize + (1 << 20), "{most} bytes for a file of {size}");
    if let Err(error) = &result {
        assert!(!error.to_string().contains('\n'), "more than one line: {error}");
    }
    result
}

// ------------------------------------------------------------------------------------------- damage

/// A change of a file's bytes; positions are taken modulo the length.
#[derive(Clone, Debug)]
enum Damage {
    Bit(Index, u8),
    Byte(Index, u8),
    Cut(Index),
    Insert(Index, Vec<u8>),
    Remove(Index, usize),
    Repeat(Index, usize),
    /// Little or big endian in the place of four bytes.
    Word(Index, u32, bool),
    /// In the place of the next digits.
    Number(Index, &'static str),
}

const NUMBERS: [&str; 12] = [
    "-1",
    "0",
    "1",
    "255",
    "4294967296",
    "9223372036854775807",
    "99999999999999999999",
    "1e999",
    "0.5",
    "nan",
    "\"\"",
    "[]",
];

fn damage() -> impl Strategy<Value = Damage> {
    let at = any::<Index>;
    prop_oneof![
        (at(), 0..8u8).prop_map(|(at, bit)| Damage::Bit(at, bit)),
        (at(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        at().prop_map(Damage::Cut),
        (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Damage::Insert(at, bytes)),
        (at(), 1..40usize).prop_map(|(at, len)| Damage::Remove(at, len)),
        (at(), 1..40usize).prop_map(|(at, len)| Damage::Repeat(at, len)),
        (
            at(),
            prop_oneof![Just(0), Just(1), Just(u32::MAX), Just(i32::MAX as u32), any::<u32>()],
            any::<bool>()
        )
            .prop_map(|(at, word, big)| Damage::Word(at, word, big)),
        (at(), prop::sample::select(&NUMBERS[..])).prop_map(|(at, number)| Damage::Number(at, number)),
    ]
}

impl Damage {
    fn apply(&self, bytes: &mut Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let len = bytes.len();
        match self {
            Damage::Bit(at, bit) => bytes[at.index(len)] ^= 1 << bit,
            Damage::Byte(at, byte) => bytes[at.index(len)] = *byte,
            Damage::Cut(at) => bytes.truncate(at.index(len)),
            Damage::Insert(at, new) => drop(bytes.splice(at.index(len)..at.index(len), new.iter().copied())),
            Damage::Remove(at, count) => drop(bytes.drain(at.index(len)..(at.index(len) + count).min(len))),
            Damage::Repeat(at, count) => {
                let range = at.index(len)..(at.index(len) + count).min(len);
                let again = bytes[range.clone()].to_vec();
                bytes.splice(range.end..range.end, again);
            }
            Damage::Word(at, word, big) => {
                let word = if *big { word.to_be_bytes() } else { word.to_le_bytes() };
                let at = at.index(len);
                bytes[at..].iter_mut().zip(word).for_each(|(byte, new)| *byte = new);
            }
            Damage::Number(at, number) => {
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                if let Some(start) = (at.index(len)..len).find(|&at| is_digit(&bytes[at])) {
                    let count = bytes[start..].iter().take_while(|byte| is_digit(byte)).count();
                    bytes.splice(start..start + count, number.bytes());
                }
            }
        }
    }
}

/// `bytes` with one to four changes.
fn damaged(bytes: Vec<u8>) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(damage(), 1..5).prop_map(move |all| {
        let mut bytes = bytes.clone();
        all.iter().for_each(|damage| damage.apply(&mut bytes));
        bytes
    })
}

/// The same damage each time, unless more cases are asked for than usual.
fn config() -> ProptestConfig {
    let usual = std::env::var_os("PROPTEST_CASES").is_none();
    let rng_seed = if usual { RngSeed::Fixed(11) } else { RngSeed::Random };
    ProptestConfig { failure_persistence: None, rng_seed, ..ProptestConfig::default() }
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("folder")
}

/// What every data set that was read has to be.
fn check(data: &Dataset) {
    data.check().expect("a data set is checked");
    assert!(!data.inputs.is_empty() && data.inputs.len() == data.len() * data.sample_len());
}

// ------------------------------------------------------------------------------------- published data

fn idx(magic: u32, axes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let words = [&[magic], axes].concat();
    words.iter().flat_map(|word| word.to_be_bytes()).chain(bytes.iter().copied()).collect()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

fn images() -> Vec<u8> {
    idx(0x803, &[5, 4, 3], &(0..60).collect::<Vec<u8>>())
}

fn labels() -> Vec<u8> {
    idx(0x801, &[5], &[7, 0, 9, 1, 1])
}

fn read_mnist(images: (&str, &[u8]), labels: (&str, &[u8])) {
    let dir = folder();
    for (name, bytes) in [images, labels] {
        fs::write(dir.path().join(name), bytes).unwrap();
    }
    // deflate makes at most 1,032 bytes of one
    let of =
        |(name, bytes): (&str, &[u8])| if name.ends_with(".gz") { 1032 * bytes.len() } else { bytes.len() };
    if let Ok(data) = within_bounds(of(images) + of(labels), || mnist(dir.path(), Split::Train)) {
        check(&data);
        assert!(data.inputs.iter().all(|x| (0.0..=1.0).contains(x)));
        assert!(
            matches!(&data.targets, Targets::Classes(classes) if classes.iter().all(|&class| class < 10))
        );
    }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn images_idx(bytes in damaged(images())) {
        read_mnist(("train-images-idx3-ubyte", &bytes), ("train-labels-idx1-ubyte", &labels()));
    }

    #[test]
    fn labels_idx(bytes in damaged(labels())) {
        read_mnist(("train-images-idx3-ubyte", &images()), ("train-labels-idx1-ubyte", &bytes));
    }

    #[test]
    fn compressed_idx(bytes in damaged(gzip(&images()))) {
        read_mnist(("train-images-idx3-ubyte.gz", &bytes), ("train-labels-idx1-ubyte", &labels()));
    }

    #[test]
    fn compressed_damage(bytes in damaged(images()).prop_map(|bytes| gzip(&bytes))) {
        read_mnist(("train-images-idx3-ubyte.gz", &bytes), ("train-labels-idx1-ubyte", &labels()));
    }

    #[test]
    fn cifar_batch(bytes in damaged([vec![3; 3073], vec![9; 3073]].concat()), limit in 1..4usize) {
        let dir = folder();
        fs::write(dir.path().join("test_batch.bin"), &bytes).unwrap();
        let wanted = Selection { limit: Some(limit), ..Selection::default() };
        if let Ok(data) = within_bounds(bytes.len(), || cifar10(dir.path(), Split::Test, &wanted)) {
            check(&data);
            assert_eq!((data.len(), &data.shape[..]), (limit, &[3, 32, 32][..]));
        }
    }

    #[test]
    fn sst2_sentences(bytes in damaged(b"sentence\tlabel\na good film \t1\nnot one , a b\xc3\xb6re\t0\r\n".to_vec())) {
        let dir = folder();
        fs::write(dir.path().join("dev.tsv"), &bytes).unwrap();
        let wanted = Selection { limit: Some(1), ..Selection::default() };
        if let Ok(rows) = within_bounds(bytes.len(), || sst2(dir.path(), Split::Test, &wanted)) {
            let vocabulary = Vocabulary::of(&rows.sentences);
            let data = rows.encode(&vocabulary, 3).unwrap();
            check(&data);
            data.check_tokens(vocabulary.ids()).unwrap();
        }
    }
}

// ----------------------------------------------------------------------------------------- safetensors

type Foreign<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

fn file(tensors: &[Foreign]) -> Vec<u8> {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).expect("a tensor"))
    });
    safetensors::serialize(views, None).expect("a file")
}

fn bytes_of<T: bytemuck::NoUninit>(values: &[T]) -> Vec<u8> {
    bytemuck::cast_slice(values).to_vec()
}

fn numbers() -> Vec<u8> {
    let values: Vec<f32> = (0..12).map(|i| i as f32 / 7.0).collect();
    file(&[
        ("inputs", Dtype::F32, &[3, 2, 2], bytes_of(&values)),
        ("targets", Dtype::I64, &[3], bytes_of(&[0i64, 2, 1])),
    ])
}

fn halves() -> Vec<u8> {
    file(&[
        ("inputs", Dtype::F16, &[3, 2], bytes_of(&[0x3c00u16; 6])),
        ("targets", Dtype::BF16, &[3, 2], bytes_of(&[0x3f80u16; 6])),
    ])
}

fn tokens() -> Vec<u8> {
    file(&[
        ("inputs", Dtype::I32, &[2, 3], bytes_of(&[4i32, 1, 0, 7, 0, 0])),
        ("mask", Dtype::BOOL, &[2, 3], vec![1, 1, 0, 1, 0, 0]),
        ("targets", Dtype::I32, &[2], bytes_of(&[1i32, 0])),
    ])
}

fn read_data(bytes: &[u8]) {
    let dir = folder();
    let path = dir.path().join("d.safetensors");
    fs::write(&path, bytes).unwrap();
    if let Ok(data) = within_bounds(bytes.len(), || Dataset::read(&path)) {
        check(&data);
        if data.tokens {
            data.check_tokens((1 << 24) + 1).unwrap();
        }
    }
}

/// A file of the crate's own writing.
fn written(write: impl FnOnce(&Path) -> Result<()>) -> Vec<u8> {
    let dir = folder();
    let path = dir.path().join("t.safetensors");
    write(&path).unwrap();
    fs::read(path).unwrap()
}

fn layout() -> Layout {
    Layout::of([("0.weight".to_string(), vec![2, 2]), ("0.bias".to_string(), vec![2])])
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn data_of_numbers(bytes in damaged(numbers())) {
        read_data(&bytes);
    }

    #[test]
    fn data_of_halves(bytes in damaged(halves())) {
        read_data(&bytes);
    }

    #[test]
    fn data_of_tokens(bytes in damaged(tokens())) {
        read_data(&bytes);
    }

    #[test]
    fn weights(bytes in damaged(file(&[
        ("module.0.weight", Dtype::F32, &[2, 2], bytes_of(&[1.0f32; 4])),
        ("module.0.bias", Dtype::F64, &[2], bytes_of(&[1.0f64; 2])),
    ]))) {
        let dir = folder();
        let path = dir.path().join("w.safetensors");
        fs::write(&path, &bytes).unwrap();
        let signature = [("0.weight", vec![2, 2]), ("0.bias", vec![2])];
        if let Ok(parameters) = within_bounds(bytes.len(), || read_parameters(&path, &signature)) {
            assert!(parameters.len() == 6 && parameters.iter().all(|x| x.is_finite()));
        }
    }

    #[test]
    fn vectors(bytes in damaged(written(|path| {
        let (key, text) = layout().metadata();
        write_tensors(path, &[("v", &[2, 6], &[0.5; 12])], &[(key, &text)])
    }))) {
        let dir = folder();
        let path = dir.path().join("v.safetensors");
        fs::write(&path, &bytes).unwrap();
        if let Ok((k, values)) = within_bounds(bytes.len(), || read_directions(&path, &layout())) {
            assert!(k > 0 && values.len() == 6 * k && values.iter().all(|x| x.is_finite()));
        }
    }
}

// ------------------------------------------------------------------------------------------ model files

/// Layers of every kind and option.
const MODELS: [&str; 3] = [
    "input = [1, 8, 8]\n[[layers]]\ntype = \"conv2d\"\nout_channels = 2\nkernel_size = 3\nstride = 1\npadding = 1\n\
     [[layers]]\ntype = \"residual\"\n[[layers.body]]\ntype = \"conv2d\"\nout_channels = 4\nkernel_size = 1\n\
     [[layers.shortcut]]\ntype = \"pad_channels\"\nchannels = 4\n[[layers]]\ntype = \"max_pool2d\"\nkernel_size = 2\n\
     stride = 2\n[[layers]]\ntype = \"adaptive_avg_pool2d\"\noutput_size = 2\n[[layers]]\ntype = \"flatten\"\n\
     [[layers]]\ntype = \"linear\"\nout_features = 3\nbias = true\n",
    "tokens = 4\n[[layers]]\ntype = \"embedding\"\nnum_embeddings = 9\nembedding_dim = 4\n[[layers]]\n\
     type = \"positional_encoding\"\nkind = \"learned\"\n[[layers]]\ntype = \"transformer_encoder_layer\"\n\
     num_heads = 2\ndim_feedforward = 8\nactivation = \"gelu\"\nnorm_first = true\n[[layers]]\ntype = \"mean_pool\"\n\
     [[layers]]\ntype = \"linear\"\nout_features = 2\n",
    "input = [6]\ninitialisation = \"fixup\"\nlayers = [{ type = \"linear\", out_features = 5 }, { type = \"leaky_relu\", \
     negative_slope = 0.1 }, { type = \"scalar_scale\" }, { type = \"scalar_bias\" }, { type = \"linear\", \
     out_features = 2, bias = false }]\n",
];

proptest! {
    #![proptest_config(config())]

    #[test]
    fn models(bytes in prop::sample::select(&MODELS[..]).prop_flat_map(|text| damaged(text.into()))) {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let parsed = within_bounds(64 * text.len(), || Ok(Model::parse(&text)))?;
        match parsed {
            Err(problem) => assert!(problem.starts_with("line ") && !problem.contains('\n'), "{problem}"),
            Ok(model) => {
                assert_eq!(Model::parse(&model.to_toml()).as_ref(), Ok(&model));
                if let Ok(network) = within_bounds(1024 * text.len(), || Network::new(&model)) {
                    let most = network.graph().tensors.iter().map(|tensor| tensor.len).max();
                    assert!(most.is_some_and(|most| most <= u32::MAX as usize));
                    assert!(network.dim() <= u32::MAX as usize && network.outputs() > 0);
                }
            }
        }
    }
}

#[test]
fn models_are_read_as_they_are() {
    for text in MODELS {
        Network::new(&Model::parse(text).unwrap()).unwrap();
    }
    for entry in ZOO {
        assert_eq!(Model::parse(&entry.model().to_toml()).unwrap(), entry.model());
    }
}

// ----------------------------------------------------------------------------------------- saved states

const DIM: usize = 24;

fn matrix() -> DenseMatrix {
    let values: Vec<f32> =
        (0..DIM * DIM).map(|i| if i % (DIM + 1) == 0 { (i / DIM + 1) as f32 } else { 0.0 }).collect();
    DenseMatrix::new(gpu(), DIM, &values).unwrap()
}

fn options() -> LanczosOptions {
    LanczosOptions { block: Some(2), ..LanczosOptions::new(3) }
}

/// The damage that makes no other file, or one that is refused.
#[test]
fn solver_states() {
    let operator = matrix();
    let state = written(|path| {
        let mut lanczos = Lanczos::new(&operator, options())?;
        (0..3).try_for_each(|_| lanczos.step().map(drop))?;
        lanczos.save(path, &[])
    });
    let dir = folder();
    let path = dir.path().join("state.safetensors");
    fs::write(&path, &state).unwrap();
    let whole = Lanczos::resume(&operator, options(), &path).unwrap().progress();
    proptest!(config(), |(bytes in damaged(state.clone()))| {
        fs::write(&path, &bytes).unwrap();
        if let Ok(lanczos) = within_bounds(bytes.len() + (1 << 20), || Lanczos::resume(&operator, options(), &path)) {
            // an order of keys, a space: the content is the same
            prop_assert_eq!(&lanczos.progress(), &whole);
        }
    });
}
