//! Data sets, tensor files and downloads: what is read back, and what every wrong input is told.

use std::{
    fs,
    io::{self, Read, Write},
    net::TcpListener,
    path::Path,
    thread,
};

use curvkit::{
    Result,
    data::{
        Dataset, Layout, Others, Selection, Sentences, Split, Standardization, Targets, TensorFile,
        Vocabulary, cifar10,
        fetch::{Archive, Member, Source, gunzip, untar, unzip},
        mnist, read_directions, read_parameters, same_axes, sst2, synthetic_digits, write_atomically,
        write_parameters, write_tensors,
    },
};
use flate2::{Compression, write::GzEncoder};
use safetensors::{Dtype, tensor::TensorView};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// The error's message, with the folder's path written DIR.
fn message<T>(dir: &TempDir, result: Result<T>) -> String {
    let message = result.err().expect("an error").to_string();
    assert!(!message.contains('\n'), "more than one line: {message}");
    message.replace(dir.path().to_str().expect("UTF-8"), "DIR")
}

/// The names of all files in a folder.
fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .expect("folder")
        .map(|entry| entry.expect("entry").file_name().into_string().expect("UTF-8"))
        .collect();
    names.sort();
    names
}

fn folder() -> TempDir {
    tempfile::tempdir().expect("folder")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

// ---------------------------------------------------------------------------------------- IDX files

fn idx(magic: u32, axes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let words = [&[magic], axes].concat();
    words.iter().flat_map(|word| word.to_be_bytes()).chain(bytes.iter().copied()).collect()
}

/// Three images of 2 × 2 pixels and their labels.
fn small_mnist() -> (Vec<u8>, Vec<u8>) {
    let pixels = [0, 51, 102, 255, 1, 2, 3, 4, 255, 254, 253, 252];
    (idx(0x803, &[3, 2, 2], &pixels), idx(0x801, &[3], &[7, 0, 9]))
}

const IMAGES: &str = "train-images-idx3-ubyte";
const LABELS: &str = "train-labels-idx1-ubyte";

#[test]
fn idx_plain_and_gz_give_the_same() {
    let (images, labels) = small_mnist();
    let plain = folder();
    fs::write(plain.path().join(IMAGES), &images).unwrap();
    fs::write(plain.path().join(LABELS), &labels).unwrap();
    let data = mnist(plain.path(), Split::Train).unwrap();
    assert_eq!(data.shape, [1, 2, 2]);
    assert_eq!(data.targets, Targets::Classes(vec![7, 0, 9]));
    assert_eq!(data.inputs[..4], [0.0, 0.2, 0.4, 1.0]);
    assert_eq!(data.inputs[8..], [1.0, 254.0 / 255.0, 253.0 / 255.0, 252.0 / 255.0]);

    let compressed = folder();
    fs::create_dir(compressed.path().join("mnist")).unwrap();
    fs::write(compressed.path().join(format!("mnist/{IMAGES}.gz")), gzip(&images)).unwrap();
    fs::write(compressed.path().join(format!("mnist/{LABELS}.gz")), gzip(&labels)).unwrap();
    assert_eq!(mnist(compressed.path(), Split::Train).unwrap(), data);
}

#[test]
fn idx_errors() {
    let (images, labels) = small_mnist();
    let cases: &[(Vec<u8>, Vec<u8>, &str)] = &[
        (
            labels.clone(),
            labels.clone(),
            "DIR/train-images-idx3-ubyte: found magic number 0x00000801, expected 0x00000803",
        ),
        (
            images.clone(),
            images.clone(),
            "DIR/train-labels-idx1-ubyte: found magic number 0x00000803, expected 0x00000801",
        ),
        (
            images[..9].to_vec(),
            labels.clone(),
            "DIR/train-images-idx3-ubyte: truncated: found 9 bytes, expected a header of 16",
        ),
        (
            images[..20].to_vec(),
            labels.clone(),
            "DIR/train-images-idx3-ubyte: truncated: found 4 bytes after the header, expected 12 for shape [3, 2, 2]",
        ),
        (
            [&images[..], &[0]].concat(),
            labels.clone(),
            "DIR/train-images-idx3-ubyte: found bytes after the last element, expected 12 for shape [3, 2, 2]",
        ),
        (
            idx(0x803, &[u32::MAX, u32::MAX, u32::MAX], &[0]),
            labels.clone(),
            "DIR/train-images-idx3-ubyte: found more bytes than can be counted for shape [4294967295, 4294967295, 4294967295]",
        ),
        (
            idx(0x803, &[0, 2, 2], &[]),
            labels.clone(),
            "DIR/train-images-idx3-ubyte: found shape [0, 2, 2], expected no axis of length 0",
        ),
        (
            images.clone(),
            idx(0x801, &[2], &[7, 0]),
            "DIR/train-labels-idx1-ubyte: found 2 labels, expected 3, one for each image",
        ),
        (
            images.clone(),
            idx(0x801, &[3], &[7, 0, 10]),
            "DIR/train-labels-idx1-ubyte: found label 10 for sample 2, expected 0 to 9",
        ),
    ];
    for (images, labels, expected) in cases {
        let dir = folder();
        fs::write(dir.path().join(IMAGES), images).unwrap();
        fs::write(dir.path().join(LABELS), labels).unwrap();
        assert_eq!(message(&dir, mnist(dir.path(), Split::Train)), *expected);
    }
}

#[test]
fn idx_missing_files_are_named() {
    let dir = folder();
    let missing = "DIR: found neither t10k-images-idx3-ubyte nor t10k-images-idx3-ubyte.gz, here or in the folder mnist";
    assert_eq!(message(&dir, mnist(dir.path(), Split::Test)), missing);
}

#[test]
fn idx_truncated_anywhere_is_an_error() {
    let (images, labels) = small_mnist();
    let dir = folder();
    fs::write(dir.path().join(LABELS), labels).unwrap();
    for (name, bytes) in [(IMAGES.to_string(), images.clone()), (format!("{IMAGES}.gz"), gzip(&images))] {
        let path = dir.path().join(&name);
        for length in 0..bytes.len() {
            fs::write(&path, &bytes[..length]).unwrap();
            let message = message(&dir, mnist(dir.path(), Split::Train));
            assert!(message.starts_with(&format!("DIR/{name}: truncated: ")), "{length}: {message}");
        }
        fs::remove_file(path).unwrap();
    }
}

#[test]
fn idx_corrupt_gz_is_an_error() {
    let (images, labels) = small_mnist();
    let dir = folder();
    fs::write(dir.path().join(LABELS), labels).unwrap();
    let path = dir.path().join(format!("{IMAGES}.gz"));

    fs::write(&path, &images).unwrap();
    assert_eq!(
        message(&dir, mnist(dir.path(), Split::Train)),
        "DIR/train-images-idx3-ubyte.gz: no valid gzip stream: invalid gzip header"
    );

    let mut bytes = gzip(&images);
    let checksum = bytes.len() - 8;
    bytes[checksum] ^= 1;
    fs::write(&path, bytes).unwrap();
    assert_eq!(
        message(&dir, mnist(dir.path(), Split::Train)),
        "DIR/train-images-idx3-ubyte.gz: no valid gzip stream: corrupt gzip stream does not have a matching checksum"
    );
}

#[test]
fn mnist_as_published() {
    let Some(dir) = std::env::var_os("CURVKIT_DATA") else {
        println!("skipped: CURVKIT_DATA is not set");
        return;
    };
    for (split, samples, first, mean) in [(Split::Train, 60_000, 5, 0.1307), (Split::Test, 10_000, 7, 0.1325)]
    {
        let data = mnist(&dir, split).unwrap();
        assert_eq!((data.len(), &data.shape[..]), (samples, &[1, 28, 28][..]));
        let Targets::Classes(classes) = &data.targets else { panic!("no classes") };
        assert_eq!(classes[0], first);
        let sum: f64 = data.inputs.iter().map(|&x| f64::from(x)).sum();
        assert!((sum / data.inputs.len() as f64 - mean).abs() < 1e-4);

        let selection = Selection { classes: Some(vec![0, 1, 2]), per_class: Some(800), limit: None };
        let selected = data.selected(&selection).unwrap();
        let Targets::Classes(classes) = &selected.targets else { panic!("no classes") };
        for class in 0..3 {
            assert_eq!(classes.iter().filter(|&&c| c == class).count(), 800);
        }
        assert_eq!(classes.len(), 2400);
    }
}

// ---------------------------------------------------------------------------------- CIFAR-10's files

/// Records of one colour a channel.
fn batch(records: &[(u8, [u8; 3])]) -> Vec<u8> {
    let record = |&(label, colours): &(u8, [u8; 3])| {
        let pixels = colours.into_iter().flat_map(|colour| vec![colour; 1024]);
        std::iter::once(label).chain(pixels).collect::<Vec<_>>()
    };
    records.iter().flat_map(record).collect()
}

/// As many records as a published batch has: the given ones over and over.
fn whole_batch(records: &[(u8, [u8; 3])]) -> Vec<u8> {
    batch(records).repeat(10_000 / records.len())
}

#[test]
fn cifar_batches_follow_one_another() {
    let dir = folder();
    let batches = dir.path().join("cifar-10-batches-bin");
    fs::create_dir(&batches).unwrap();
    fs::write(batches.join("data_batch_1.bin"), whole_batch(&[(3, [0, 1, 2]), (0, [255, 102, 0])])).unwrap();
    fs::write(batches.join("data_batch_2.bin"), batch(&[(9, [51, 0, 255])])).unwrap();
    fs::write(batches.join("test_batch.bin"), batch(&[(7, [5, 5, 5])])).unwrap();
    let data = cifar10(dir.path(), Split::Train, &take(None, None, Some(10_001))).unwrap();
    assert_eq!((data.len(), &data.shape[..]), (10_001, &[3, 32, 32][..]));
    let Targets::Classes(classes) = &data.targets else { panic!("no classes") };
    assert_eq!([&classes[..4], &classes[9_999..]].concat(), [3, 0, 3, 0, 0, 9]);
    let colours = |sample: usize| data.inputs[sample * 3072..][..3072].chunks(1024).map(|plane| plane[1023]);
    assert_eq!(colours(0).collect::<Vec<_>>(), [0.0, 1.0 / 255.0, 2.0 / 255.0]);
    assert_eq!(colours(9_999).collect::<Vec<_>>(), [1.0, 0.4, 0.0]);
    assert_eq!(colours(10_000).collect::<Vec<_>>(), [0.2, 0.0, 1.0]);
    let test = cifar10(&batches, Split::Test, &take(None, None, Some(1))).unwrap();
    assert_eq!(test.targets, Targets::Classes(vec![7]));
}

/// What is asked for is there before a batch that is missing or short, or it is an error.
#[test]
fn fewer_samples_than_meant() {
    let dir = folder();
    let path = |i: usize| dir.path().join(format!("data_batch_{i}.bin"));
    fs::write(path(1), whole_batch(&[(3, [0, 1, 2]), (0, [255, 102, 0])])).unwrap();
    fs::write(path(2), batch(&[(9, [0; 3]), (3, [1; 3])])).unwrap();
    fs::write(path(4), batch(&[(8, [0; 3])])).unwrap();
    let read = |classes: Option<&[u32]>, per_class, limit| {
        cifar10(dir.path(), Split::Train, &take(classes, per_class, limit))
    };
    for (classes, per_class, limit, count) in [
        (None, None, Some(10_002), 10_002),
        (None, None, Some(7), 7),
        (Some(&[9, 3][..]), None, Some(5_002), 5_002),
        (Some(&[9]), Some(1), None, 1),
        (Some(&[0, 3]), Some(5_000), None, 10_000),
        (Some(&[0, 9]), Some(1), Some(2), 2),
    ] {
        assert_eq!(read(classes, per_class, limit).unwrap().len(), count);
    }
    let short = "DIR/data_batch_2.bin: found 2 records, expected 10000";
    for (classes, per_class, limit) in [
        (None, None, None),
        (None, None, Some(10_003)),
        (Some(&[9][..]), None, None),
        (Some(&[9]), None, Some(2)),
        (Some(&[9]), Some(2), None),
        (None, Some(1), None),
        (None, Some(1), Some(1)),
    ] {
        assert_eq!(message(&dir, read(classes, per_class, limit)), short);
    }
    fs::remove_file(path(2)).unwrap();
    assert_eq!(
        message(&dir, read(None, None, None)),
        "DIR: found no data_batch_2.bin, here or in the folder cifar-10-batches-bin"
    );

    fs::write(dir.path().join("dev.tsv"), "sentence\tlabel\na\t1\nb\t0\nc\t1\n").unwrap();
    let read = |per_class, limit| sst2(dir.path(), Split::Test, &take(None, per_class, limit));
    assert_eq!(read(None, Some(3)).unwrap().classes, [1, 0, 1]);
    assert_eq!(read(Some(1), None).unwrap().classes, [1, 0]);
    for (per_class, limit) in [(None, None), (None, Some(4)), (Some(2), None)] {
        assert_eq!(message(&dir, read(per_class, limit)), "DIR/dev.tsv: found 3 sentences, expected 872");
    }
}

#[test]
fn cifar_errors() {
    let dir = folder();
    assert_eq!(
        message(&dir, cifar10(dir.path(), Split::Train, &all())),
        "DIR: found no data_batch_1.bin, here or in the folder cifar-10-batches-bin"
    );
    assert_eq!(
        message(&dir, cifar10(dir.path(), Split::Test, &all())),
        "DIR: found no test_batch.bin, here or in the folder cifar-10-batches-bin"
    );
    let whole = batch(&[(1, [0; 3]), (10, [0; 3])]);
    for (bytes, expected) in [
        (&whole[..], "found label 10 for record 1, expected 0 to 9"),
        (&whole[..6145], "truncated: found 6145 bytes, expected records of 3073"),
        (&[], "truncated: found 0 bytes, expected records of 3073"),
    ] {
        fs::write(dir.path().join("data_batch_1.bin"), bytes).unwrap();
        let found = message(&dir, cifar10(dir.path(), Split::Train, &all()));
        assert_eq!(found, format!("DIR/data_batch_1.bin: {expected}"));
    }
}

#[test]
fn cifar_as_published() {
    let Some(dir) = std::env::var_os("CURVKIT_DATA") else {
        println!("skipped: CURVKIT_DATA is not set");
        return;
    };
    let data = cifar10(&dir, Split::Test, &all()).unwrap();
    let Targets::Classes(classes) = &data.targets else { panic!("no classes") };
    assert_eq!((data.len(), classes[..5].to_vec()), (10_000, vec![3, 8, 8, 0, 6]));
    assert!((0..10).all(|class| classes.iter().filter(|&&c| c == class).count() == 1000));

    // there may be three batches or five
    let train = cifar10(&dir, Split::Train, &take(None, None, Some(30_000))).unwrap();
    let Targets::Classes(classes) = &train.targets else { panic!("no classes") };
    assert_eq!(classes[..5], [6, 9, 9, 4, 1]);
    // of all five batches: 0.4914, 0.4822, 0.4465 and 0.2470, 0.2435, 0.2616
    let published = [[0.4914, 0.2470], [0.4822, 0.2435], [0.4465, 0.2616]];
    for (found, published) in Standardization::of(&train).unwrap().channels.iter().zip(published) {
        assert!((0..2).all(|i| (found[i] - published[i]).abs() < 2e-3), "{found:?}, expected {published:?}");
    }
}

// -------------------------------------------------------------------------------------- SST-2's files

fn tsv(dir: &TempDir, content: &[u8]) -> Result<Sentences> {
    fs::write(dir.path().join("train.tsv"), content).unwrap();
    sst2(dir.path(), Split::Train, &take(None, None, Some(2)))
}

#[test]
fn sentences_become_ids_and_mask() {
    let dir = folder();
    let rows = tsv(&dir, b"sentence\tlabel\nA good film \t1\nnot a Good one , a bore\t0\n").unwrap();
    assert_eq!(rows.sentences, ["A good film ", "not a Good one , a bore"]);
    assert_eq!(rows.classes, [1, 0]);

    // a: 3 times, good: twice, then , bore film not one
    let vocabulary = Vocabulary::of(&rows.sentences);
    assert_eq!(vocabulary.ids(), 9);
    let ids = ["a", "good", ",", "bore", "film", "not", "one", "unheard", ""].map(|word| vocabulary.id(word));
    assert_eq!(ids, [2, 3, 4, 5, 6, 7, 8, 1, 1]);
    let reversed: Vec<String> = rows.sentences.iter().rev().cloned().collect();
    assert_eq!(Vocabulary::of(&reversed), vocabulary);

    let data = rows.encode(&vocabulary, 4).unwrap();
    assert_eq!((&data.shape[..], &data.targets), (&[2, 4][..], &Targets::Classes(vec![1, 0])));
    assert_eq!(data.inputs[..8], [2.0, 3.0, 6.0, 0.0, 1.0, 1.0, 1.0, 0.0]);
    assert_eq!(data.inputs[8..], [7.0, 2.0, 3.0, 8.0, 1.0, 1.0, 1.0, 1.0]);
    let first = rows.selected(&take(Some(&[0]), None, None)).unwrap();
    assert_eq!(first.sentences, ["not a Good one , a bore"]);
    for length in [0, 1_073_741_824] {
        assert_eq!(
            rows.encode(&vocabulary, length).unwrap_err().to_string(),
            format!("max_length: found {length}, expected 1 to 1073741823, for 2 sentences")
        );
    }
    data.check_tokens(9).unwrap();
    assert_eq!(
        data.check_tokens(8).unwrap_err().to_string(),
        "tokens: found id 8 for token 3 of sample 1, expected 0 to 7"
    );
}

#[test]
fn sentences_errors() {
    let dir = folder();
    assert_eq!(
        message(&dir, sst2(dir.path(), Split::Test, &all())),
        "DIR: found no dev.tsv, here or in the folder sst2"
    );
    let cases: &[(&[u8], &str)] = &[
        (b"", r#"line 1: found header "", expected "sentence\tlabel""#),
        (b"index\tsentence\na\t1\n", r#"line 1: found header "index\tsentence", expected "sentence\tlabel""#),
        (b"sentence\tlabel\n", "line 2: found the end of the file, expected at least one sentence"),
        (b"sentence\tlabel\na\t1\nb\n", "line 3: found 1 columns, expected sentence and label"),
        (b"sentence\tlabel\na\tb\t1\n", "line 2: found 3 columns, expected sentence and label"),
        (b"sentence\tlabel\n \t1\n", "line 2: found no word, expected a sentence"),
        (b"sentence\tlabel\na\t1\nb\t2\n", r#"line 3: found label "2", expected 0 or 1"#),
        (b"sentence\tlabel\na\t1\n\xff\t1\n", "line 3: found bytes that are not UTF-8, expected text"),
    ];
    for (content, expected) in cases {
        assert_eq!(message(&dir, tsv(&dir, content)), format!("DIR/train.tsv: {expected}"));
    }
}

#[test]
fn sentences_as_published() {
    let Some(dir) = std::env::var_os("CURVKIT_DATA") else {
        println!("skipped: CURVKIT_DATA is not set");
        return;
    };
    let train = sst2(&dir, Split::Train, &all()).unwrap();
    let test = sst2(&dir, Split::Test, &all()).unwrap();
    assert_eq!((train.classes.len(), test.classes.len()), (67_349, 872));
    // what transformer-sst2 of the zoo counts on
    let first = train.selected(&take(None, None, Some(1000))).unwrap();
    assert_eq!(Vocabulary::of(&first.sentences).ids(), 2970);
    let data = train.encode(&Vocabulary::of(&train.sentences), 64).unwrap();
    let longest = data.inputs.chunks(128).map(|sample| sample[64..].iter().sum::<f32>()).fold(0.0, f32::max);
    assert_eq!(longest, 52.0);
}

// ----------------------------------------------------------------------------------- standardisation

#[test]
fn standardised_channels() {
    let inputs = vec![1.0, 3.0, 10.0, 10.0, 5.0, 7.0, 10.0, 10.0];
    let mut data = Dataset::new(inputs, vec![2, 1, 2], Targets::Classes(vec![0, 1])).unwrap();
    let standardization = Standardization::of(&data).unwrap();
    assert_eq!(standardization.channels, [[4.0, 5.0f64.sqrt()], [10.0, 1.0]]);
    standardization.apply(&mut data).unwrap();
    let root = 5.0f64.sqrt();
    let expected = [-3.0, -1.0, 0.0, 0.0, 1.0, 3.0, 0.0, 0.0].map(|x| (x / root) as f32);
    assert_eq!(data.inputs, expected);

    let mut other = classes(&[0]);
    assert_eq!(
        standardization.apply(&mut other).unwrap_err().to_string(),
        "inputs: channels: found shape [1], expected [2]"
    );
    other.shape = vec![1, 1, 1, 1];
    assert_eq!(
        Standardization::of(&other).unwrap_err().to_string(),
        "standardization: one sample: found shape [1, 1, 1, 1], expected [channels, height, width], [height, width] or \
         [values]"
    );
}

// ------------------------------------------------------------------------------------- samples' axes

#[test]
fn axes_that_are_the_same() {
    let same: [[&[usize]; 2]; 9] = [
        [&[3, 4, 4], &[3, 4, 4]],
        [&[28, 28], &[1, 28, 28]],
        [&[1, 28, 28], &[28, 28]],
        [&[1, 28, 1, 28], &[28, 28]],
        [&[48], &[3, 4, 4]],
        [&[3, 4, 4], &[48]],
        [&[1, 48], &[3, 4, 4]],
        [&[1], &[]],
        [&[1, 1], &[1]],
    ];
    let others: [[&[usize]; 2]; 6] = [
        [&[4, 4, 3], &[3, 4, 4]],
        [&[3, 2, 8], &[3, 4, 4]],
        [&[3, 16], &[3, 4, 4]],
        [&[28, 14, 2], &[28, 28]],
        [&[47], &[3, 4, 4]],
        [&[2], &[]],
    ];
    assert!(same.iter().all(|[found, expected]| same_axes(found, expected)));
    for [found, expected] in others {
        assert!(!same_axes(found, expected) && !same_axes(expected, found), "{found:?} {expected:?}");
    }
}

// ---------------------------------------------------------------------------------------- selection

/// One value a sample, its position.
fn classes(of: &[u32]) -> Dataset {
    let positions = (0..of.len()).map(|i| i as f32).collect();
    Dataset::new(positions, vec![1], Targets::Classes(of.to_vec())).unwrap()
}

fn all() -> Selection {
    Selection::default()
}

fn take(classes: Option<&[u32]>, per_class: Option<usize>, limit: Option<usize>) -> Selection {
    Selection { classes: classes.map(<[u32]>::to_vec), per_class, limit }
}

#[test]
fn selection_keeps_the_order_of_the_file() {
    let data = classes(&[2, 0, 1, 1, 2, 0, 0, 2, 1]);
    let cases: &[(Selection, &[f32])] = &[
        (take(None, None, None), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        (take(None, None, Some(2)), &[0.0, 1.0]),
        (take(None, None, Some(9)), &[0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]),
        (take(Some(&[2, 0]), None, None), &[0.0, 1.0, 4.0, 5.0, 6.0, 7.0]),
        (take(Some(&[2, 0]), Some(2), None), &[0.0, 1.0, 4.0, 5.0]),
        (take(Some(&[1]), Some(3), None), &[2.0, 3.0, 8.0]),
        (take(None, Some(1), None), &[0.0, 1.0, 2.0]),
        (take(None, Some(2), Some(4)), &[0.0, 1.0, 2.0, 3.0]),
    ];
    for (selection, expected) in cases {
        assert_eq!(data.selected(selection).unwrap().inputs, *expected, "{selection:?}");
    }
}

/// A checkpoint from memory, with a tensor beside the parameters.
#[test]
fn parameters_from_memory_and_beside_others() {
    let dir = folder();
    let path = dir.path().join("w.safetensors");
    write_tensors(
        &path,
        &[("a", &[2], &[1.0, 2.0]), ("running_mean", &[1], &[9.0]), ("b", &[1], &[3.0])],
        &[],
    )
    .unwrap();
    let file = TensorFile::from_bytes("memory", fs::read(&path).unwrap()).unwrap();
    let layout = [("b", vec![1]), ("a", vec![2])];
    assert_eq!(file.parameters(&layout, Others::Ignore).unwrap(), [3.0, 1.0, 2.0]);
    let expected = "memory: running_mean [1] is not among the model's parameters";
    assert_eq!(file.parameters(&layout, Others::Refuse).err().unwrap().to_string(), expected);
    let short = TensorFile::from_bytes("memory", vec![1, 2]).err().unwrap().to_string();
    assert_eq!(short, "memory: truncated: found 2 bytes, expected a safetensors header");
}

#[test]
fn selection_errors() {
    let data = classes(&[2, 0, 4, 4, 2, 0, 0]);
    let values = Targets::Values { values: vec![0.5; 4], width: 2 };
    let values = Dataset::new(vec![0.0; 2], vec![1], values).unwrap();
    let nothing = "data set: found no samples, expected at least one sample";
    let cases = [
        (
            &data,
            take(Some(&[0, 1]), None, None),
            "classes: found class 1, of which there is no sample, expected some of 0,2,4",
        ),
        (&data, take(None, Some(3), None), "per_class: found 2 samples of class 2, expected at least 3"),
        (
            &data,
            take(Some(&[4]), Some(9), None),
            "per_class: found 2 samples of class 4, expected at least 9",
        ),
        (&data, take(Some(&[]), None, None), nothing),
        (&data, take(None, Some(0), None), "per_class: found 0, expected at least 1"),
        (&data, take(None, None, Some(0)), "limit: found 0, expected at least 1"),
        (&data, take(None, None, Some(8)), "limit: found 8 of 7 samples, expected no more than there are"),
        (
            &data,
            take(Some(&[2, 4]), Some(1), Some(3)),
            "limit: found 3 of 2 samples, expected no more than there are",
        ),
        (
            &values,
            take(Some(&[0]), Some(1), None),
            "classes: found targets that are values, expected targets that are classes",
        ),
        (
            &values,
            take(None, Some(1), None),
            "per_class: found targets that are values, expected targets that are classes",
        ),
    ];
    for (data, selection, expected) in cases {
        assert_eq!(data.selected(&selection).unwrap_err().to_string(), expected);
    }
    assert_eq!(values.selected(&take(None, None, Some(1))).unwrap().len(), 1);
}

// ------------------------------------------------------------------------------------- tensor files

/// A tensor as the safetensors crate writes it: another writer than the one under test.
type Foreign<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

fn foreign<'a, T: bytemuck::NoUninit>(
    name: &'a str,
    dtype: Dtype,
    shape: &'a [usize],
    elements: &[T],
) -> Foreign<'a> {
    (name, dtype, shape, bytemuck::cast_slice(elements).to_vec())
}

fn write_foreign(path: &Path, tensors: &[Foreign]) {
    let views = tensors.iter().map(|(name, dtype, shape, bytes)| {
        (*name, TensorView::new(*dtype, shape.to_vec(), bytes).expect("a tensor"))
    });
    fs::write(path, safetensors::serialize(views, None).expect("a file")).unwrap();
}

/// What [`write_tensors`] takes.
type Tensors<'a> = &'a [(&'a str, &'a [usize], &'a [f32])];

#[test]
fn tensors_round_trip() {
    let dir = folder();
    let path = dir.path().join("t.safetensors");
    let matrix: [f32; 6] = [1.0, -2.5, f32::MIN_POSITIVE, f32::MAX, -0.0, 1e-42];
    let tensors: Tensors = &[("z", &[2, 3], &matrix), ("loss", &[], &[0.25]), ("none", &[0, 4], &[])];
    write_tensors(&path, tensors, &[("seed", "7"), ("model", "a \"quoted\" ünicode name")]).unwrap();

    let file = TensorFile::read(&path).unwrap();
    assert_eq!(file.metadata("seed"), Some("7"));
    assert_eq!(file.metadata("model"), Some("a \"quoted\" ünicode name"));
    assert_eq!(file.metadata("none"), None);
    for (name, shape, values) in tensors {
        assert_eq!(file.shape(name).unwrap(), *shape);
        let read = file.f32(name, shape).unwrap();
        assert_eq!(bytemuck::cast_slice::<_, u32>(&read), bytemuck::cast_slice::<_, u32>(values));
    }

    // Other readers agree, and the same content gives the same bytes.
    let bytes = fs::read(&path).unwrap();
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(theirs.tensor("z").unwrap().shape(), [2, 3]);
    assert_eq!(theirs.tensor("z").unwrap().data(), bytemuck::cast_slice::<f32, u8>(&matrix));
    write_tensors(&path, tensors, &[("model", "a \"quoted\" ünicode name"), ("seed", "7")]).unwrap();
    assert_eq!(fs::read(&path).unwrap(), bytes);
    assert_eq!(names(dir.path()), ["t.safetensors"]);
}

#[test]
fn tensors_that_cannot_be_written() {
    let dir = folder();
    let path = dir.path().join("t.safetensors");
    let cases: &[(Tensors, &str)] = &[
        (&[("a", &[2, 2], &[0.0; 3])], "a: found shape [3], expected [2, 2]"),
        (&[("a", &[2, 2], &[0.0, 0.0, 0.0, f32::NAN])], "a is not finite: NaN at [1, 1]"),
        (&[("a", &[1], &[0.0]), ("a", &[1], &[0.0])], "tensor name: found a twice, expected each name once"),
        (&[("__metadata__", &[1], &[0.0])], "tensor name: found __metadata__ twice, expected each name once"),
    ];
    for (tensors, expected) in cases {
        assert_eq!(message(&dir, write_tensors(&path, tensors, &[])), *expected);
    }
    assert_eq!(names(dir.path()), [""; 0]);
}

#[test]
fn tensor_files_that_are_none() {
    let dir = folder();
    let path = dir.path().join("t.safetensors");
    let read = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        message(&dir, TensorFile::read(&path))
    };
    assert_eq!(
        message(&dir, TensorFile::read(dir.path().join("absent"))),
        "DIR/absent: read: No such file or directory (os error 2)"
    );
    assert_eq!(read(b"abc"), "DIR/t.safetensors: truncated: found 3 bytes, expected a safetensors header");
    assert_eq!(
        read(b"PK\x03\x04a zip archive"),
        "DIR/t.safetensors: truncated or no safetensors file: found 9 bytes after the first eight, expected a header of 7600422922192374608"
    );
    assert_eq!(
        read(b"\x02\0\0\0\0\0\0\0{]"),
        "DIR/t.safetensors: corrupt safetensors header: key must be a string at line 1 column 2"
    );
    assert_eq!(
        read(b"\x02\0\0\0\0\0\0\0{}xyz"),
        "DIR/t.safetensors: too long: found 3 bytes after the header, expected 0"
    );

    write_tensors(&path, &[("a", &[2, 3], &[1.0; 6])], &[]).unwrap();
    let whole = fs::read(&path).unwrap();
    for length in 0..whole.len() {
        let message = read(&whole[..length]);
        assert!(message.starts_with("DIR/t.safetensors: truncated"), "{length}: {message}");
    }
    assert_eq!(
        read(&whole[..whole.len() - 1]),
        "DIR/t.safetensors: truncated: found 23 bytes after the header, expected 24"
    );
    // A header with any byte changed is refused or read, never a panic.
    for at in 0..whole.len() - 24 {
        for bit in 0..8 {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << bit;
            fs::write(&path, bytes).unwrap();
            if let Ok(file) = TensorFile::read(&path) {
                for name in file.names() {
                    let _ = file.f32(&name, file.shape(&name).unwrap());
                }
            }
        }
    }
}

#[test]
fn tensors_of_the_wrong_kind() {
    let dir = folder();
    let path = dir.path().join("t.safetensors");
    write_foreign(
        &path,
        &[
            foreign("double", Dtype::F64, &[2], &[0.1f64, -3.0]),
            foreign("huge", Dtype::F64, &[1], &[1e300f64]),
            foreign("endless", Dtype::F64, &[1, 2], &[1.0f64, f64::NEG_INFINITY]),
            foreign("holes", Dtype::F32, &[2, 2], &[1.0, 2.0, f32::NAN, f32::INFINITY]),
            foreign("int", Dtype::I32, &[3], &[4i32, 0, 2]),
            foreign("long", Dtype::I64, &[2], &[4i64, u32::MAX.into()]),
            foreign("negative", Dtype::I64, &[2, 2], &[4i64, 0, 2, -1]),
            foreign("toolong", Dtype::I64, &[1], &[1i64 << 32]),
            foreign("half", Dtype::F16, &[3], &[0x3e00u16, 0x0001, 0xfbff]),
            foreign("brain", Dtype::BF16, &[3], &[0x3fc0u16, 0x0001, 0xff7f]),
            foreign("nohalf", Dtype::F16, &[1, 2], &[0u16, 0x7c00]),
            foreign("nobrain", Dtype::BF16, &[1], &[0xffc0u16]),
        ],
    );
    let file = TensorFile::read(&path).unwrap();
    assert_eq!(file.f32("double", &[2]).unwrap(), [0.1, -3.0]);
    assert_eq!(file.f64("double", &[2]).unwrap(), [0.1, -3.0]);
    // the smallest and the largest there are: each an f32
    assert_eq!(file.f32("half", &[3]).unwrap(), [1.5, 2f32.powi(-24), -65504.0]);
    assert_eq!(file.f32("brain", &[3]).unwrap(), [1.5, f32::from_bits(1 << 16), -255.0 * 2f32.powi(120)]);
    assert_eq!(file.f64("huge", &[1]).unwrap(), [1e300]);
    assert_eq!(file.indices("int", &[3]).unwrap(), [4, 0, 2]);
    assert_eq!(file.indices("long", &[2]).unwrap(), [4, u32::MAX]);

    let float = |name, shape: &[usize]| message(&dir, file.f32(name, shape));
    let index = |name, shape: &[usize]| message(&dir, file.indices(name, shape));
    assert_eq!(
        float("absent", &[2]),
        "DIR/t.safetensors: no tensor absent, only long, negative, toolong, double, endless, huge, holes, int, and 4 more"
    );
    assert_eq!(float("holes", &[4]), "DIR/t.safetensors: tensor holes: found shape [2, 2], expected [4]");
    assert_eq!(
        float("holes", &[2, 2]),
        "DIR/t.safetensors: tensor holes: found NaN at [1, 0], expected a finite f32"
    );
    assert_eq!(
        float("huge", &[1]),
        "DIR/t.safetensors: tensor huge: found 1e300 at [0], expected a finite f32"
    );
    assert_eq!(
        float("nohalf", &[1, 2]),
        "DIR/t.safetensors: tensor nohalf: found inf at [0, 1], expected a finite f32"
    );
    assert_eq!(
        float("nobrain", &[1]),
        "DIR/t.safetensors: tensor nobrain: found NaN at [0], expected a finite f32"
    );
    assert_eq!(
        message(&dir, file.f64("endless", &[1, 2])),
        "DIR/t.safetensors: tensor endless: found -inf at [0, 1], expected a finite number"
    );
    assert_eq!(
        message(&dir, file.f64("holes", &[2, 2])),
        "DIR/t.safetensors: tensor holes: found F32, expected F64"
    );
    assert_eq!(
        float("int", &[3]),
        "DIR/t.safetensors: tensor int: found I32, expected F32, F64, F16 or BF16"
    );
    assert_eq!(index("double", &[2]), "DIR/t.safetensors: tensor double: found F64, expected I32 or I64");
    assert_eq!(
        index("negative", &[2, 2]),
        "DIR/t.safetensors: tensor negative: found -1 at [1, 1], expected 0 to 4294967295"
    );
    assert_eq!(
        index("toolong", &[1]),
        "DIR/t.safetensors: tensor toolong: found 4294967296 at [0], expected 0 to 4294967295"
    );
    assert_eq!(index("int", &[]), "DIR/t.safetensors: tensor int: found shape [3], expected []");

    write_foreign(&path, &[foreign("two\nlines\u{1b}[2J", Dtype::I32, &[1], &[4i32])]);
    assert_eq!(
        message(&dir, TensorFile::read(&path).unwrap().f32("v", &[1])),
        r"DIR/t.safetensors: no tensor v, only two\nlines\u{1b}[2J"
    );

    write_foreign(&path, &[]);
    let empty = TensorFile::read(&path).unwrap();
    assert_eq!(message(&dir, empty.f32("v", &[1])), "DIR/t.safetensors: no tensor v, nor any other");
}

#[test]
fn data_sets_from_tensors() {
    let dir = folder();
    let path = dir.path().join("d.safetensors");
    let pixels: Vec<f32> = (0..12).map(|i| i as f32).collect();
    let inputs = || foreign("inputs", Dtype::F32, &[3, 2, 2], &pixels);
    let cases = [
        (foreign("targets", Dtype::I32, &[3], &[1i32, 0, 9]), Targets::Classes(vec![1, 0, 9])),
        (foreign("targets", Dtype::I64, &[3], &[1i64, 0, 9]), Targets::Classes(vec![1, 0, 9])),
        (foreign("targets", Dtype::I64, &[3, 1], &[1i64, 0, 9]), Targets::Classes(vec![1, 0, 9])),
        (
            foreign("targets", Dtype::F32, &[3, 2], &pixels[..6]),
            Targets::Values { values: pixels[..6].to_vec(), width: 2 },
        ),
        (
            foreign("targets", Dtype::F32, &[3, 1, 2], &pixels[..6]),
            Targets::Values { values: pixels[..6].to_vec(), width: 2 },
        ),
        (
            foreign("targets", Dtype::F16, &[3], &[0u16, 0x3c00, 0x4000]),
            Targets::Values { values: pixels[..3].to_vec(), width: 1 },
        ),
    ];
    for (targets, expected) in cases {
        write_foreign(&path, &[inputs(), targets]);
        let data = Dataset::read(&path).unwrap();
        assert_eq!(data, Dataset::new(pixels.clone(), vec![2, 2], expected).unwrap());
    }

    let good = || foreign("targets", Dtype::I32, &[3], &[1i32, 0, 9]);
    let cases = [
        (vec![inputs()], "no tensor targets, only inputs"),
        (vec![good()], "no tensor inputs, only targets"),
        (
            vec![inputs(), foreign("targets", Dtype::I32, &[2], &[1i32, 0])],
            "tensor targets: found shape [2], expected [3]",
        ),
        (
            vec![inputs(), foreign("targets", Dtype::I64, &[3], &[1i64, -7, 0])],
            "tensor targets: found -7 at [1], expected 0 to 4294967295",
        ),
        (
            vec![inputs(), foreign("targets", Dtype::F32, &[2, 3], &pixels[..6])],
            "tensor targets: found shape [2, 3], expected [3, L]",
        ),
        (
            vec![inputs(), foreign("targets", Dtype::F32, &[3, 2, 2], &pixels)],
            "tensor targets: found shape [3, 2, 2], expected [3, L]",
        ),
        (
            vec![inputs(), foreign("targets", Dtype::I64, &[3, 2], &[0i64; 6])],
            "tensor targets: found shape [3, 2], expected [3]",
        ),
        (
            vec![inputs(), foreign("targets", Dtype::U8, &[3], &[1u8, 0, 9])],
            "tensor targets: found U8 [3], expected I32 or I64 [3], or F32, F64, F16 or BF16 [3, L]",
        ),
        (
            vec![inputs(), foreign("targets", Dtype::F32, &[3, 1], &[0.0, f32::NAN, 0.0])],
            "tensor targets: found NaN at [1, 0], expected a finite f32",
        ),
        (
            vec![foreign("inputs", Dtype::F32, &[3], &pixels[..3]), good()],
            "tensor inputs: found shape [3], expected [N, …] without an axis of length 0",
        ),
        (
            vec![foreign("inputs", Dtype::F32, &[0, 4], &pixels[..0]), good()],
            "tensor inputs: found shape [0, 4], expected [N, …] without an axis of length 0",
        ),
        (
            vec![foreign("inputs", Dtype::U8, &[3, 1], &[1u8, 2, 3]), good()],
            "tensor inputs: found U8, expected F32, F64, F16 or BF16, or I32 or I64 for token ids",
        ),
        (
            vec![foreign("inputs", Dtype::F32, &[3, 1], &[0.0, 1.0, f32::NEG_INFINITY]), good()],
            "tensor inputs: found -inf at [2, 0], expected a finite f32",
        ),
    ];
    for (tensors, expected) in cases {
        write_foreign(&path, &tensors);
        assert_eq!(message(&dir, Dataset::read(&path)), format!("DIR/d.safetensors: {expected}"));
    }
}

#[test]
fn parameters_round_trip() {
    let dir = folder();
    let path = dir.path().join("w.safetensors");
    // In the order of the layout, which is neither that of the names nor that of the file.
    let layout = [("2.weight", vec![2, 3]), ("0.weight", vec![4]), ("0.bias", vec![])];
    let parameters: Vec<f32> = (0..11).map(|i| i as f32 / 7.0).collect();
    write_parameters(&path, &layout, &parameters, &[("epoch", "3")]).unwrap();
    assert_eq!(read_parameters(&path, &layout).unwrap(), parameters);
    assert_eq!(TensorFile::read(&path).unwrap().f32("0.weight", &[4]).unwrap(), parameters[6..10]);
    assert_eq!(TensorFile::read(&path).unwrap().metadata("epoch"), Some("3"));

    write_foreign(
        &path,
        &[
            foreign("0.bias", Dtype::F32, &[], &parameters[10..]),
            foreign("0.weight", Dtype::F32, &[4], &parameters[6..10]),
            foreign("2.weight", Dtype::F32, &[2, 3], &parameters[..6]),
        ],
    );
    assert_eq!(read_parameters(&path, &layout).unwrap(), parameters);
}

/// What wrappers put before every name is no part of the names.
#[test]
fn parameters_of_wrapped_models() {
    let dir = folder();
    let path = dir.path().join("w.safetensors");
    let layout = [("0.weight", vec![2, 3]), ("0.bias", vec![2])];
    let write = |names: [&str; 2]| {
        let tensors: Tensors = &[(names[0], &[2, 3], &[1.0; 6]), (names[1], &[2], &[2.0; 2])];
        write_tensors(&path, tensors, &[]).unwrap();
        read_parameters(&path, &layout)
    };
    for prefix in ["module.", "_orig_mod.", "_orig_mod.module.", "module._orig_mod.", "module.module."] {
        let read = write([&format!("{prefix}0.weight"), &format!("{prefix}0.bias")]);
        assert_eq!(read.unwrap(), [1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 2.0, 2.0], "{prefix}");
    }
    let cases = [
        (
            ["module.0.weight", "0.bias"],
            "0.weight [2, 3] is missing; module.0.weight [2, 3] is not among the model's parameters",
        ),
        (
            ["module.0.weight", "module.1.bias"],
            "module.0.bias [2] is missing; module.1.bias [2] is not among the model's parameters",
        ),
        (
            ["net.0.weight", "net.0.bias"],
            "0.weight [2, 3] is missing; 0.bias [2] is missing; net.0.bias [2] is not among the model's parameters; \
             net.0.weight [2, 3] is not among the model's parameters",
        ),
    ];
    for (names, expected) in cases {
        let mut found = message(&dir, write(names));
        // in the order of their data
        if names[0] == "net.0.weight" {
            found = found.replace(
                "net.0.weight [2, 3] is not among the model's parameters; net.0.bias [2]",
                "net.0.bias [2]",
            );
            assert!(found.ends_with("net.0.bias [2] is not among the model's parameters"), "{found}");
            continue;
        }
        assert_eq!(found, format!("DIR/w.safetensors: {expected}"));
    }
}

#[test]
fn parameters_that_do_not_fit() {
    let dir = folder();
    let path = dir.path().join("w.safetensors");
    write_tensors(&path, &[("0.weight", &[3, 2], &[0.0; 6]), ("fc.bias", &[2], &[0.0; 2])], &[]).unwrap();
    let layout = [("0.weight", vec![2, 3]), ("0.bias", vec![2])];
    assert_eq!(
        message(&dir, read_parameters(&path, &layout)),
        "DIR/w.safetensors: 0.weight: found shape [3, 2], expected [2, 3]; 0.bias [2] is missing; fc.bias [2] is not among the model's parameters"
    );
    let many: Vec<(String, Vec<usize>)> = (0..20).map(|i| (format!("{i}.weight"), vec![3, 2])).collect();
    assert_eq!(
        message(&dir, read_parameters(&path, &many)),
        "DIR/w.safetensors: 1.weight [3, 2] is missing; 2.weight [3, 2] is missing; 3.weight [3, 2] is missing; \
         4.weight [3, 2] is missing; and 15 more are missing; fc.bias [2] is not among the model's parameters"
    );
    let named: Vec<String> = (0..6).map(|i| format!("fc.{i}")).collect();
    let tensors: Vec<_> = named.iter().map(|name| (name.as_str(), &[2][..], &[0.0; 2][..])).collect();
    write_tensors(&path, &tensors, &[]).unwrap();
    assert_eq!(
        message(&dir, read_parameters(&path, &layout)),
        "DIR/w.safetensors: 0.weight [2, 3] is missing; 0.bias [2] is missing; fc.0 [2] is not among the model's \
         parameters; fc.1 [2] is not among the model's parameters; fc.2 [2] is not among the model's parameters; fc.3 \
         [2] is not among the model's parameters; and 2 more are not among them"
    );
    assert_eq!(
        message(&dir, write_parameters(&path, &layout, &[0.0; 9], &[])),
        "parameters: found shape [9], expected [8]"
    );
}

#[test]
fn directions() {
    let dir = folder();
    let path = dir.path().join("v.safetensors");
    let values: Vec<f32> = (0..6).map(|i| i as f32).collect();
    write_tensors(&path, &[("v", &[2, 3], &values)], &[]).unwrap();
    let (three, four) = (layout_of(&[("0.weight", &[3, 1])]), layout_of(&[("0.weight", &[2, 2])]));
    assert_eq!(read_directions(&path, &three).unwrap(), (2, values.clone()));
    assert_eq!(
        message(&dir, read_directions(&path, &four)),
        "DIR/v.safetensors: tensor v: found shape [2, 3], expected [K, 4] with K at least 1"
    );
    for (shape, found) in [(&[0, 3][..], "[0, 3]"), (&[3], "[3]")] {
        write_tensors(&path, &[("v", shape, &values[..shape.iter().product()])], &[]).unwrap();
        assert_eq!(
            message(&dir, read_directions(&path, &three)),
            format!("DIR/v.safetensors: tensor v: found shape {found}, expected [K, 3] with K at least 1")
        );
    }
    write_foreign(&path, &[foreign("v", Dtype::F32, &[1, 3], &[0.0, f32::NAN, 0.0])]);
    assert_eq!(
        message(&dir, read_directions(&path, &three)),
        "DIR/v.safetensors: tensor v: found NaN at [0, 1], expected a finite f32"
    );
}

/// Names and shapes.
type Parameters<'a> = &'a [(&'a str, &'a [usize])];

fn layout_of(parameters: Parameters) -> Layout {
    Layout::of(parameters.iter().map(|&(name, shape)| (name.to_string(), shape.to_vec())))
}

/// A file that says where its vectors' coordinates lie is read as what it says.
#[test]
fn directions_of_another_layout() {
    let dir = folder();
    let path = dir.path().join("v.safetensors");
    let written = layout_of(&[("2.bias", &[3]), ("0.weight", &[1, 3])]);
    let (key, text) = written.metadata();
    assert_eq!(
        (key, text.as_str()),
        (
            "layout",
            r#"[{"name":"2.bias","shape":[3],"offset":0},{"name":"0.weight","shape":[1,3],"offset":3}]"#
        )
    );
    write_tensors(&path, &[("v", &[1, 6], &[1.0; 6])], &[(key, &text)]).unwrap();
    assert_eq!(read_directions(&path, &written).unwrap().0, 1);
    let cases: [(Parameters, &str); 4] = [
        (&[("0.weight", &[1, 3]), ("2.bias", &[3])], "found 2.bias [3] at 0, expected 0.weight [1, 3] at 0"),
        (&[("2.bias", &[3]), ("0.weight", &[3])], "found 0.weight [1, 3] at 3, expected 0.weight [3] at 3"),
        (&[("2.bias", &[3])], "found 0.weight [1, 3] at 3, expected the end"),
        (
            &[("2.bias", &[3]), ("0.weight", &[1, 3]), ("3.bias", &[1])],
            "found the end, expected 3.bias [1] at 6",
        ),
    ];
    for (layout, expected) in cases {
        let found = message(&dir, read_directions(&path, &layout_of(layout)));
        assert_eq!(found, format!("DIR/v.safetensors: layout of the vectors: {expected}"));
    }
    write_tensors(&path, &[("v", &[1, 6], &[1.0; 6])], &[(key, "NCHW")]).unwrap();
    let found = message(&dir, read_directions(&path, &written));
    assert!(found.starts_with("DIR/v.safetensors: no layout of vectors in the metadata: "), "{found}");
}

#[test]
fn token_files() {
    let dir = folder();
    let path = dir.path().join("d.safetensors");
    let ids = foreign("inputs", Dtype::I64, &[2, 3], &[4i64, 1, 0, 7, 0, 0]);
    let targets = foreign("targets", Dtype::I32, &[2], &[0i32, 1]);
    let masks = [
        foreign("mask", Dtype::BOOL, &[2, 3], &[1u8, 1, 0, 1, 0, 0]),
        foreign("mask", Dtype::F32, &[2, 3], &[1.0f32, 1.0, 0.0, 1.0, 0.0, 0.0]),
        foreign("mask", Dtype::I32, &[2, 3], &[1i32, 1, 0, 1, 0, 0]),
        foreign("mask", Dtype::F16, &[2, 1, 3], &[0x3c00u16, 0x3c00, 0, 0x3c00, 0, 0]),
    ];
    for mask in masks {
        write_foreign(&path, &[ids.clone(), mask, targets.clone()]);
        let data = Dataset::read(&path).unwrap();
        assert_eq!((&data.shape[..], &data.targets), (&[2, 3][..], &Targets::Classes(vec![0, 1])));
        assert_eq!(data.inputs, [4.0, 1.0, 0.0, 1.0, 1.0, 0.0, 7.0, 0.0, 0.0, 1.0, 0.0, 0.0]);
    }
    write_foreign(&path, &[ids.clone(), targets.clone()]);
    assert_eq!(Dataset::read(&path).unwrap().inputs[9..], [1.0, 1.0, 1.0]);

    let cases = [
        (
            foreign("mask", Dtype::F32, &[2, 3], &[1.0f32, 0.5, 0.0, 1.0, 0.0, 0.0]),
            "mask: found 0.5 for token 1 of sample 0, expected 0 or 1",
        ),
        (
            foreign("mask", Dtype::BOOL, &[2, 3], &[1u8, 0, 0, 0, 0, 0]),
            "mask: found no token kept of sample 1, expected at least one",
        ),
        (
            foreign("mask", Dtype::BOOL, &[3, 2], &[1u8; 6]),
            "tensor mask: found shape [3, 2], expected [2, 3]",
        ),
        (
            foreign("mask", Dtype::I8, &[2, 3], &[1u8; 6]),
            "tensor mask: found I8, expected BOOL, U8, I32 or I64, or F32, F64, F16 or BF16",
        ),
        (
            foreign("inputs", Dtype::I32, &[2, 3], &[1i32, 2, 3, 4, -5, 6]),
            "tensor inputs: found -5 at [1, 1], expected 0 to 4294967295",
        ),
        (
            foreign("inputs", Dtype::I32, &[2, 3], &[1i32, 2, 3, 4, 16_777_218, 6]),
            "tokens: found id 16777218 for token 1 of sample 1, expected 0 to 16777216",
        ),
        (
            foreign("inputs", Dtype::I32, &[2, 3, 2], &[1i32; 12]),
            "tensor inputs: found shape [2, 3, 2], expected [N, T] for token ids",
        ),
    ];
    for (tensor, expected) in cases {
        let others = [&ids, &targets].into_iter().filter(|other| other.0 != tensor.0);
        write_foreign(&path, &others.chain([&tensor]).cloned().collect::<Vec<_>>());
        assert_eq!(message(&dir, Dataset::read(&path)), format!("DIR/d.safetensors: {expected}"));
    }
}

// ------------------------------------------------------------------------------------ atomic writing

#[test]
fn a_file_is_written_whole_or_not_at_all() {
    let dir = folder();
    let path = dir.path().join("result.csv");
    write_atomically(&path, |file| file.write_all(b"old")).unwrap();
    let refused = write_atomically(&path, |file| {
        file.write_all(&[b'x'; 100_000])?;
        assert_eq!(fs::read(&path)?, b"old");
        Err(io::Error::other("no more room"))
    });
    assert_eq!(message(&dir, refused), "DIR/result.csv: write: no more room");
    assert_eq!(fs::read(&path).unwrap(), b"old");
    write_atomically(&path, |file| file.write_all(b"new")).unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"new");
    assert_eq!(names(dir.path()), ["result.csv"]);

    assert_eq!(
        message(&dir, write_atomically(dir.path(), |_| Ok(()))),
        "DIR: found something else, expected a regular file or none"
    );
    assert_eq!(
        message(&dir, write_atomically(dir.path().join("absent/result.csv"), |_| Ok(()))),
        "DIR/absent/result.csv: create: No such file or directory (os error 2)"
    );
    assert_eq!(names(dir.path()), ["result.csv"]);
}

// -------------------------------------------------------------------------------------- drawn digits

#[test]
fn drawn_digits() {
    let data = synthetic_digits(3, 7).unwrap();
    assert_eq!((data.len(), &data.shape[..]), (30, &[1, 28, 28][..]));
    let Targets::Classes(classes) = &data.targets else { panic!("no classes") };
    assert!(classes.iter().enumerate().all(|(i, &class)| class == i as u32 % 10));
    assert!(data.inputs.iter().all(|&x| (0.0..=1.0).contains(&x) && (x * 255.0).round() / 255.0 == x));
    assert_eq!(synthetic_digits(3, 7).unwrap(), data);
    assert_ne!(synthetic_digits(3, 8).unwrap(), data);
    assert_eq!(synthetic_digits(2, 7).unwrap().inputs, data.inputs[..20 * 784]);
    assert_eq!(
        synthetic_digits(0, 7).unwrap_err().to_string(),
        "data set: found no samples, expected at least one sample"
    );
}

/// The nearest class mean, a weak classifier, already tells most of them apart, but not all.
#[test]
fn drawn_digits_can_be_told_apart() {
    let digits: Vec<_> = synthetic_digits(200, 0).unwrap().inputs.chunks(784).map(<[f32]>::to_vec).collect();
    let (train, test) = digits.split_at(1000);
    let mut means = vec![[0.0f32; 784]; 10];
    for (i, image) in train.iter().enumerate() {
        means[i % 10].iter_mut().zip(image).for_each(|(mean, x)| *mean += x / 100.0);
    }
    let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b).powi(2)).sum::<f32>();
    let right = test.iter().enumerate().filter(|(i, image)| {
        let nearest = (0..10)
            .min_by(|&a, &b| distance(image, &means[a]).total_cmp(&distance(image, &means[b])))
            .unwrap();
        nearest == i % 10
    });
    let right = right.count();
    assert!((600..1000).contains(&right), "{right} of 1000");
}

// ----------------------------------------------------------------------------------------- downloads

const GREETING_GZ: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0x4b, 0x2e, 0x2d, 0x2a, 0xcb, 0xce, 0x2c,
    0xe1, 0x02, 0x00, 0x59, 0xeb, 0xc9, 0xb5, 0x08, 0x00, 0x00, 0x00,
];
const LABELS_GZ: &[u8] = &[
    0x1f, 0x8b, 0x08, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x03, 0xcb, 0x49, 0x4c, 0x4a, 0xcd, 0x29, 0xe6,
    0x02, 0x00, 0x63, 0xf7, 0xd2, 0x58, 0x07, 0x00, 0x00, 0x00,
];

/// Two archives, which hold `curvkit\n` and `labels\n`.
const SMALL: Source = Source {
    name: "small",
    base_url: "http://localhost:9/",
    archives: &[
        Archive {
            name: "greeting.gz",
            sha256: "25028112b95fa5811b4a2262e91221be6c62723fdfcbe3106aea08a116ba76c6",
            unpack: gunzip,
            members: &[Member {
                path: "small/greeting",
                sha256: "504c259be2e6f85995b5fd5fde29216842fc75caaf0d34634759769973dbeb9a",
            }],
        },
        Archive {
            name: "labels.gz",
            sha256: "c48f808a6c7339fc52cc69c6db57419b51e2563c72118c11bf5e6fbfe5f686ef",
            unpack: gunzip,
            members: &[Member {
                path: "small/labels",
                sha256: "f09bfce73b77b1665a8b94ac7ccc2c40386754467806aeb0b9aebe1334563c7a",
            }],
        },
    ],
};

/// Answers as many requests as there are answers, each (status line, announced length, bytes sent).
/// Gives its URL and, once all are answered, the paths that were asked for.
fn serve(answers: Vec<(&'static str, usize, Vec<u8>)>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/base", listener.local_addr().unwrap());
    let server = thread::spawn(move || {
        let answer = |(status, length, bytes): (&str, usize, Vec<u8>)| {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            let head = format!("HTTP/1.1 {status}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            stream.write_all(&[head.as_bytes(), &bytes].concat()).unwrap();
            String::from_utf8(request).unwrap().split(' ').nth(1).unwrap().to_string()
        };
        answers.into_iter().map(answer).collect()
    });
    (url, server)
}

fn whole(bytes: &[u8]) -> (&'static str, usize, Vec<u8>) {
    ("200 OK", bytes.len(), bytes.to_vec())
}

fn half(bytes: &[u8]) -> (&'static str, usize, Vec<u8>) {
    ("200 OK", bytes.len(), bytes[..bytes.len() / 2].to_vec())
}

#[test]
fn fetch_downloads_what_is_not_there() {
    let dir = folder();
    let (url, server) = serve(vec![whole(GREETING_GZ), whole(LABELS_GZ)]);
    let mut seen = Vec::new();
    let fetched = SMALL
        .fetch(dir.path(), Some(&url), &mut |at| seen.push((at.archive.to_string(), at.received, at.total)))
        .unwrap();
    assert_eq!(fetched, ["greeting.gz", "labels.gz"]);
    assert_eq!(server.join().unwrap(), ["/base/greeting.gz", "/base/labels.gz"]);
    assert_eq!(seen.last(), Some(&("labels.gz".into(), 27, Some(27))));
    assert_eq!(fs::read(dir.path().join("small/greeting")).unwrap(), b"curvkit\n");
    assert_eq!(fs::read(dir.path().join("small/labels")).unwrap(), b"labels\n");
    assert_eq!(names(dir.path()), ["small"]);
    assert_eq!(names(&dir.path().join("small")), ["greeting", "labels"]);

    // Nothing listens any more, and nothing is asked for.
    assert_eq!(SMALL.fetch(dir.path(), Some(&url), &mut |_| {}).unwrap(), [""; 0]);

    // A file that was changed is brought again, the other is not.
    fs::write(dir.path().join("small/labels"), b"changed").unwrap();
    let (url, server) = serve(vec![whole(LABELS_GZ)]);
    assert_eq!(SMALL.fetch(dir.path(), Some(&(url + "/")), &mut |_| {}).unwrap(), ["labels.gz"]);
    assert_eq!(server.join().unwrap(), ["/base/labels.gz"]);
    assert_eq!(fs::read(dir.path().join("small/labels")).unwrap(), b"labels\n");
}

#[test]
fn fetch_tries_again_what_may_pass() {
    let dir = folder();
    let (url, server) = serve(vec![
        ("503 Service Unavailable", 4, b"busy".to_vec()),
        half(GREETING_GZ),
        whole(GREETING_GZ),
        whole(LABELS_GZ),
    ]);
    SMALL.fetch(dir.path(), Some(&url), &mut |_| {}).unwrap();
    server.join().unwrap();
    assert_eq!(fs::read(dir.path().join("small/greeting")).unwrap(), b"curvkit\n");
}

#[test]
fn fetch_errors_leave_nothing_behind() {
    let cases = [
        (
            vec![whole(b"something else")],
            "URL/greeting.gz: found SHA-256 f41f3fa625ff120ddca7ef456bf66371ecea23c129f4e4c32367101edb516cf8, expected 25028112b95fa5811b4a2262e91221be6c62723fdfcbe3106aea08a116ba76c6",
        ),
        (vec![("404 Not Found", 0, vec![])], "URL/greeting.gz: found HTTP status 404, expected 200"),
        (
            vec![("500 Internal Server Error", 0, vec![]); 3],
            "URL/greeting.gz: found HTTP status 500, expected 200",
        ),
        (vec![half(GREETING_GZ); 3], "URL/greeting.gz: stopped after 14 bytes: Peer disconnected"),
    ];
    for (answers, expected) in cases {
        let dir = folder();
        let (url, server) = serve(answers);
        let message = message(&dir, SMALL.fetch(dir.path(), Some(&url), &mut |_| {}));
        assert_eq!(message.replace(&url, "URL"), expected);
        server.join().unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }
}

#[test]
fn fetch_keeps_what_was_complete() {
    let dir = folder();
    let (url, server) = serve(vec![whole(GREETING_GZ), ("403 Forbidden", 0, vec![])]);
    let message = message(&dir, SMALL.fetch(dir.path(), Some(&url), &mut |_| {}));
    assert_eq!(message.replace(&url, "URL"), "URL/labels.gz: found HTTP status 403, expected 200");
    server.join().unwrap();
    assert_eq!(names(&dir.path().join("small")), ["greeting"]);
    assert_eq!(names(dir.path()), ["small"]);
}

#[test]
fn fetch_without_a_server() {
    let dir = folder();
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let url = format!("http://127.0.0.1:{port}");
    let refused = message(&dir, SMALL.fetch(dir.path(), Some(&url), &mut |_| {}));
    assert!(refused.starts_with(&format!("{url}/greeting.gz: Connection refused")), "{refused}");
    assert_eq!(
        message(&dir, SMALL.fetch(dir.path(), Some("http:// nowhere"), &mut |_| {})),
        "http:// nowhere/greeting.gz: http: invalid uri character"
    );
    assert_eq!(names(dir.path()), [""; 0]);
}

/// [`Archive::unpack`]
type Unpack = fn(&fs::File, &Path, &[Member]) -> Result<()>;

/// A published archive of `members` (path below the folder of data sets, content), made on the spot.
fn published(
    name: &'static str,
    unpack: Unpack,
    archive: &[u8],
    members: &[(&'static str, &[u8])],
) -> Source {
    let sum = |bytes: &[u8]| -> &'static str {
        let sum: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
        sum.leak()
    };
    let members = members.iter().map(|&(path, content)| Member { path, sha256: sum(content) });
    let members: &'static [Member] = members.collect::<Vec<_>>().leak();
    let archive = Archive { name, sha256: sum(archive), unpack, members };
    Source { name: "made", base_url: "http://localhost:9/", archives: vec![archive].leak() }
}

#[test]
fn fetch_unpacks_tar_and_zip() {
    let contents: [(&str, &[u8]); 3] =
        [("upstream/readme.html", b"<p>"), ("upstream/b.bin", b"second"), ("upstream/a.bin", b"first")];
    let members: [(&str, &[u8]); 2] = [("made/a.bin", b"first"), ("made/b.bin", b"second")];

    let mut tar = tar::Builder::new(Vec::new());
    // a folder may bear a member's name
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Directory);
    header.set_size(0);
    tar.append_data(&mut header, "upstream/a.bin/", io::empty()).unwrap();
    for (name, content) in contents {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        tar.append_data(&mut header, name, content).unwrap();
    }
    let tar_gz = gzip(&tar.into_inner().unwrap());

    let mut zip = zip::ZipWriter::new(io::Cursor::new(Vec::new()));
    for (name, content) in contents {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        zip.write_all(content).unwrap();
    }
    let zip = zip.finish().unwrap().into_inner();

    let cases: [(_, Unpack, _); 2] = [("made.tar.gz", untar, tar_gz), ("made.zip", unzip, zip)];
    for (name, unpack, archive) in cases {
        let dir = folder();
        let source = published(name, unpack, &archive, &members);
        let (url, server) = serve(vec![whole(&archive)]);
        assert_eq!(source.fetch(dir.path(), Some(&url), &mut |_| {}).unwrap(), [name]);
        server.join().unwrap();
        assert_eq!(names(dir.path()), ["made"]);
        assert_eq!(names(&dir.path().join("made")), ["a.bin", "b.bin"]);
        assert_eq!(fs::read(dir.path().join("made/b.bin")).unwrap(), b"second");
        assert_eq!(source.fetch(dir.path(), Some("http://localhost:9"), &mut |_| {}).unwrap(), [""; 0]);

        // an archive that lacks a member, and one that is none
        let dir = folder();
        let more = [&members[..], &[("made/c.bin", b"third")]].concat();
        let (url, server) = serve(vec![whole(&archive)]);
        let lacking = published(name, unpack, &archive, &more);
        assert_eq!(
            message(&dir, lacking.fetch(dir.path(), Some(&url), &mut |_| {})),
            "DIR/made/c.bin: found no such file in the archive, expected one"
        );
        server.join().unwrap();
        assert_eq!(names(dir.path()), ["made"]);
        let dir = folder();
        let (url, server) = serve(vec![whole(b"something else")]);
        let none = published(name, unpack, b"something else", &members);
        let found = message(&dir, none.fetch(dir.path(), Some(&url), &mut |_| {}));
        assert!(found.starts_with("DIR: corrupt archive: "), "{found}");
        server.join().unwrap();
        assert_eq!(names(dir.path()), [""; 0]);
    }
}

#[test]
fn data_sets_that_can_be_fetched() {
    let archives = ["mnist", "cifar10", "sst2"].map(|name| Source::named(name).unwrap().archives);
    assert_eq!(archives.map(<[Archive]>::len), [4, 1, 1]);
    for member in archives.iter().copied().flatten().flat_map(|archive| archive.members) {
        assert!(member.sha256.len() == 64 && !member.path.contains(".."), "{}", member.path);
    }
    assert_eq!(
        Source::named("mnits").err().unwrap().to_string(),
        "data set: found “mnits”, expected mnist, cifar10, sst2"
    );
}

/// What a killed process left of a file goes when the file is written next; what is being written stays.
#[test]
fn a_file_that_was_left_half_written_is_cleared() {
    let dir = folder();
    let path = dir.path().join("result.csv");
    for left in [".result.csv.4711-0.part", ".other.csv.4711-0.part", ".result.csv.notes.part"] {
        fs::write(dir.path().join(left), "ha").unwrap();
    }
    write_atomically(&path, |outer| {
        outer.write_all(b"first")?;
        write_atomically(&path, |inner| inner.write_all(b"second")).map_err(io::Error::other)
    })
    .unwrap();
    assert_eq!(fs::read(&path).unwrap(), b"first");
    assert_eq!(names(dir.path()), [".other.csv.4711-0.part", ".result.csv.notes.part", "result.csv"]);
}
