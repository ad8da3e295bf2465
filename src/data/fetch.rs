//! Downloads the published data sets: checked, unpacked, nothing half-written.

use std::{
    fs::File,
    io::{self, Read, Seek, Write},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::write_atomically;
use crate::files::Part;
use crate::{Error, Result};

/// A data set as it is published: archives below one URL. SHA-256 sums are in lower-case hexadecimal.
pub struct Source {
    /// The name on the command line.
    pub name: &'static str,
    /// Where the archives are, with a slash at its end.
    pub base_url: &'static str,
    /// The files to download.
    pub archives: &'static [Archive],
}

/// A published file and what it unpacks to.
pub struct Archive {
    /// The name below the base URL.
    pub name: &'static str,
    /// The sum of the file as published.
    pub sha256: &'static str,
    /// Writes the members below the folder given, from the archive at its start.
    pub unpack: fn(&File, &Path, &[Member]) -> Result<()>,
    /// The files that it is unpacked to.
    pub members: &'static [Member],
}

/// A file that an archive unpacks to.
pub struct Member {
    /// The path below the folder of all data sets.
    pub path: &'static str,
    /// The sum of its content.
    pub sha256: &'static str,
}

/// How far a download is.
pub struct Progress<'a> {
    /// The archive's name.
    pub archive: &'a str,
    /// Bytes received; starts again where a download is tried again.
    pub received: u64,
    /// Bytes to receive, where the server says so.
    pub total: Option<u64>,
}

/// The data sets that can be fetched.
pub const SOURCES: &[Source] = &[MNIST, CIFAR10, SST2];

const MNIST: Source = Source {
    name: "mnist",
    base_url: "https://ossci-datasets.s3.amazonaws.com/mnist/",
    archives: &[
        Archive {
            name: "train-images-idx3-ubyte.gz",
            sha256: "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            unpack: gunzip,
            members: &[Member {
                path: "mnist/train-images-idx3-ubyte",
                sha256: "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            }],
        },
        Archive {
            name: "train-labels-idx1-ubyte.gz",
            sha256: "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            unpack: gunzip,
            members: &[Member {
                path: "mnist/train-labels-idx1-ubyte",
                sha256: "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            }],
        },
        Archive {
            name: "t10k-images-idx3-ubyte.gz",
            sha256: "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            unpack: gunzip,
            members: &[Member {
                path: "mnist/t10k-images-idx3-ubyte",
                sha256: "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            }],
        },
        Archive {
            name: "t10k-labels-idx1-ubyte.gz",
            sha256: "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            unpack: gunzip,
            members: &[Member {
                path: "mnist/t10k-labels-idx1-ubyte",
                sha256: "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            }],
        },
    ],
};

// The sums of the archives and of the batches 4 and 5 are those that other projects' downloaders pin, several
// of them the same; those of the other files were taken of the files themselves.
const CIFAR10: Source = Source {
    name: "cifar10",
    base_url: "https://www.cs.toronto.edu/~kriz/",
    archives: &[Archive {
        name: "cifar-10-binary.tar.gz",
        sha256: "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        unpack: untar,
        members: &[
            Member {
                path: "cifar-10-batches-bin/data_batch_1.bin",
                sha256: "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5",
            },
            Member {
                path: "cifar-10-batches-bin/data_batch_2.bin",
                sha256: "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed",
            },
            Member {
                path: "cifar-10-batches-bin/data_batch_3.bin",
                sha256: "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67",
            },
            Member {
                path: "cifar-10-batches-bin/data_batch_4.bin",
                sha256: "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48",
            },
            Member {
                path: "cifar-10-batches-bin/data_batch_5.bin",
                sha256: "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add",
            },
            Member {
                path: "cifar-10-batches-bin/test_batch.bin",
                sha256: "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b",
            },
        ],
    }],
};

const SST2: Source = Source {
    name: "sst2",
    base_url: "https://dl.fbaipublicfiles.com/glue/data/",
    archives: &[Archive {
        name: "SST-2.zip",
        sha256: "d67e16fb55739c1b32cdce9877596db1c127dc322d93c082281f64057c16deaa",
        unpack: unzip,
        members: &[
            Member {
                path: "sst2/train.tsv",
                sha256: "48eac26399f8456935f81dd9e3a745c1430adb6c62e233ccfe22db4a0d15d1d1",
            },
            Member {
                path: "sst2/dev.tsv",
                sha256: "54a9c12c77e402fc14d6a66a506f24d999f596b0176eb777c972cccc2f9cc4b0",
            },
        ],
    }],
};

impl Source {
    /// The data set of that name.
    ///
    /// # Errors
    /// [`Error::Argument`] listing those that there are.
    pub fn named(name: &str) -> Result<&'static Source> {
        SOURCES.iter().find(|source| source.name == name).ok_or_else(|| {
            let names: Vec<&str> = SOURCES.iter().map(|source| source.name).collect();
            Error::argument("data set", format!("“{name}”"), names.join(", "))
        })
    }

    /// Returns the paths of all its files below the folder of all data sets.
    pub fn members(&self) -> impl Iterator<Item = &'static str> {
        self.archives.iter().flat_map(|archive| archive.members.iter().map(|member| member.path))
    }

    /// Returns those that are there, where the readers look for them: in `dir` or the folder within, plain or
    /// compressed.
    pub fn files(&self, dir: &Path) -> Vec<PathBuf> {
        let name = |path: &'static str| path.rsplit('/').next().unwrap_or(path);
        let places = self.members().flat_map(|path| [dir.join(path), dir.join(name(path))]);
        let compressed = |path: PathBuf| {
            let mut with = path.clone().into_os_string();
            with.push(".gz");
            [path, with.into()]
        };
        places.flat_map(compressed).filter(|path| path.is_file()).collect()
    }

    /// Brings the data set's files below `dir`, from `base_url` where one is given. An archive whose
    /// files are there already, with the right content, is not downloaded again. Says which were.
    ///
    /// A lost connection and an overloaded server are tried three times; eight seconds without an answer
    /// end it, so that a machine without network learns so within about ten.
    ///
    /// # Errors
    /// [`Error::Download`] where the server cannot be reached, answers with an error, stops early, or
    /// sends a file with another SHA-256; [`Error::Io`] and [`Error::File`] where a file cannot be
    /// written. Files that are complete by then stay; no other is left behind.
    pub fn fetch(
        &self,
        dir: impl AsRef<Path>,
        base_url: Option<&str>,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Vec<&'static str>> {
        let dir = dir.as_ref();
        let base_url = base_url.unwrap_or(self.base_url).trim_end_matches('/');
        std::fs::create_dir_all(dir).map_err(Error::io(dir, "create folder"))?;
        let agent = agent();
        let mut fetched = Vec::new();
        for archive in self.archives {
            if archive.is_unpacked(dir)? {
                continue;
            }
            let part = Part::create(&dir.join(archive.name))?;
            let url = format!("{base_url}/{}", archive.name);
            let found = download(&agent, &url, &part.file, &mut |received, total| {
                progress(Progress { archive: archive.name, received, total });
            })?;
            if found != archive.sha256 {
                let problem = format!("found SHA-256 {found}, expected {}", archive.sha256);
                return Err(Error::Download { url, problem });
            }
            (&part.file).rewind().map_err(Error::io(dir, "read"))?;
            (archive.unpack)(&part.file, dir, archive.members)?;
            fetched.push(archive.name);
        }
        Ok(fetched)
    }
}

impl Archive {
    fn is_unpacked(&self, dir: &Path) -> Result<bool> {
        for member in self.members {
            let path = dir.join(member.path);
            if !path.is_file() {
                return Ok(false);
            }
            let content = std::fs::read(&path).map_err(Error::io(&path, "read"))?;
            if hex(Sha256::digest(content)) != member.sha256 {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// [`Archive::unpack`] for a gzip file, whose one member is the first.
///
/// # Errors
/// [`Error::Io`] where it is no gzip file or the member cannot be written.
pub fn gunzip(archive: &File, dir: &Path, members: &[Member]) -> Result<()> {
    write_member(&mut MultiGzDecoder::new(archive), dir, &members[0])
}

/// [`Archive::unpack`] for a compressed tar file, whose files are known by their last names.
///
/// # Errors
/// [`Error::File`] where it is no such file or lacks a member, and those of [`write_atomically`].
pub fn untar(archive: &File, dir: &Path, members: &[Member]) -> Result<()> {
    let corrupt = |error: io::Error| Error::file(dir, format!("corrupt archive: {error}"));
    let mut missing: Vec<&Member> = members.iter().collect();
    let mut tar = tar::Archive::new(MultiGzDecoder::new(archive));
    for entry in tar.entries().map_err(corrupt)? {
        let mut entry = entry.map_err(corrupt)?;
        let name = entry.path().map_err(corrupt)?.into_owned();
        let found =
            missing.iter().position(|member| entry.header().entry_type().is_file() && is(&name, member));
        if let Some(at) = found {
            write_member(&mut entry, dir, missing.remove(at))?;
        }
    }
    all_found(dir, &missing)
}

/// [`Archive::unpack`] for a zip file, whose files are known by their last names.
///
/// # Errors
/// Those of [`untar`].
pub fn unzip(archive: &File, dir: &Path, members: &[Member]) -> Result<()> {
    let corrupt = |error: zip::result::ZipError| Error::file(dir, format!("corrupt archive: {error}"));
    let mut missing: Vec<&Member> = members.iter().collect();
    let mut zip = zip::ZipArchive::new(archive).map_err(corrupt)?;
    for index in 0..zip.len() {
        let mut entry = zip.by_index(index).map_err(corrupt)?;
        let name = entry.name().map_err(corrupt)?.into_owned();
        let found = missing.iter().position(|member| entry.is_file() && is(Path::new(&name), member));
        if let Some(at) = found {
            write_member(&mut entry, dir, missing.remove(at))?;
        }
    }
    all_found(dir, &missing)
}

/// Whether an archive's file is that member.
fn is(name: &Path, member: &Member) -> bool {
    name.file_name() == Path::new(member.path).file_name()
}

/// Writes a member's content, folders and all.
fn write_member(content: &mut dyn Read, dir: &Path, member: &Member) -> Result<()> {
    let path = dir.join(member.path);
    let folder = path.parent().unwrap_or(dir);
    std::fs::create_dir_all(folder).map_err(Error::io(folder, "create folder"))?;
    write_atomically(&path, |file| io::copy(content, file).map(|_| ()))
}

fn all_found(dir: &Path, missing: &[&Member]) -> Result<()> {
    match missing.first() {
        Some(member) => {
            Err(Error::file(dir.join(member.path), "found no such file in the archive, expected one"))
        }
        None => Ok(()),
    }
}

/// How long to wait for a name, a connection, or the next bytes.
const PATIENCE: Duration = Duration::from_secs(8);

/// How long to wait before the second and the third try.
const PAUSES: [Duration; 2] = [Duration::from_millis(500), Duration::from_millis(1500)];

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .user_agent(concat!("curvkit/", env!("CARGO_PKG_VERSION")))
        .timeout_resolve(Some(PATIENCE))
        .timeout_connect(Some(PATIENCE))
        .timeout_per_read(Some(PATIENCE))
        .build()
        .new_agent()
}

/// Why a try failed, and whether another may succeed.
struct Failure {
    error: Error,
    again: bool,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure { error, again: false }
    }
}

/// Makes `url`'s content that of `file`, in several tries if need be; gives its SHA-256.
fn download(
    agent: &ureq::Agent,
    url: &str,
    file: &File,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> Result<String> {
    let mut pauses = PAUSES.iter();
    loop {
        match (receive(agent, url, file, progress), pauses.next()) {
            (Ok(sum), _) => return Ok(sum),
            (Err(Failure { again: true, .. }), Some(&pause)) => thread::sleep(pause),
            (Err(failure), _) => return Err(failure.error),
        }
    }
}

/// One try of [`download`].
fn receive(
    agent: &ureq::Agent,
    url: &str,
    mut file: &File,
    progress: &mut dyn FnMut(u64, Option<u64>),
) -> std::result::Result<String, Failure> {
    let failed = |received: u64, error: ureq::Error| {
        let problem = match &error {
            ureq::Error::StatusCode(status) => format!("found HTTP status {status}, expected 200"),
            ureq::Error::Timeout(_) => format!("no answer within {} s", PATIENCE.as_secs()),
            ureq::Error::Io(error) if received > 0 => format!("stopped after {received} bytes: {error}"),
            ureq::Error::Io(error) => error.to_string(),
            error => error.to_string(),
        };
        let again = match error {
            ureq::Error::StatusCode(status) => status == 429 || status >= 500,
            ureq::Error::Io(_) => true,
            _ => false,
        };
        Failure { error: Error::Download { url: url.into(), problem }, again }
    };
    let written = |result: io::Result<()>| {
        let unwritten = |error| Error::Download { url: url.into(), problem: format!("not stored: {error}") };
        result.map_err(unwritten)
    };

    let mut response = agent.get(url).call().map_err(|error| failed(0, error))?;
    let total = response.body().content_length();
    let mut body = response.body_mut().as_reader();
    let mut sum = Sha256::new();
    let mut received = 0;
    let mut buffer = vec![0; 1 << 16];
    written(file.set_len(0).and_then(|()| file.rewind()))?;
    loop {
        let length = body.read(&mut buffer).map_err(|error| failed(received, error.into()))?;
        if length == 0 {
            return Ok(hex(sum.finalize()));
        }
        sum.update(&buffer[..length]);
        written(file.write_all(&buffer[..length]))?;
        received += length as u64;
        progress(received, total);
    }
}

fn hex(bytes: impl AsRef<[u8]>) -> String {
    bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
