//! Pareto fronts against moocore: the same points, the same front, by turns.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use harness_props::generate::Random;
use harness_props::pareto::{Duplicates, Points, Sense};
use peers_common::{Asked, Measured, Result};

use crate::seconds;

const OBJECTIVES: usize = 4;

/// Reads points from a file, and per line of input says how long the front took and how many points it has.
const THEIRS: &str = "
import sys, time, numpy, moocore
points = numpy.fromfile(sys.argv[1], dtype='<f8').reshape(-1, int(sys.argv[2]))
for line in sys.stdin:
    begun = time.perf_counter()
    front = moocore.is_nondominated(points, keep_weakly=True)
    print(time.perf_counter() - begun, int(front.sum()), flush=True)
";

/// A Python that holds the same points.
struct Theirs {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Theirs {
    fn start(python: &Path, rows: &[f64], file: &Path) -> Result<Self> {
        let bytes: Vec<u8> = rows.iter().flat_map(|value| value.to_le_bytes()).collect();
        std::fs::write(file, bytes)?;
        let mut command = Command::new(python);
        command.args(["-c", THEIRS]).arg(file).arg(OBJECTIVES.to_string());
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no pipe")?);
        Ok(Self { child, answers })
    }

    fn front(&mut self) -> Result<(f64, usize)> {
        self.child.stdin.as_mut().ok_or("no pipe")?.write_all(b"\n")?;
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        let (took, size) = line.trim().split_once(' ').ok_or_else(|| format!("moocore said `{}`", line.trim()))?;
        Ok((took.parse()?, size.parse()?))
    }
}

impl Drop for Theirs {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

pub(crate) fn uniform(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(1_000_000, 20_000);
    let mut random = Random::new(1);
    let rows: Vec<f64> = (0..count * OBJECTIVES).map(|_| unit(&mut random)).collect();
    measured(asked, "props.uniform", &rows)
}

/// Points on the sphere: all of them are on the front.
pub(crate) fn sphere(asked: &Asked) -> Result<Vec<Measured>> {
    let count = asked.times(100_000, 5_000);
    let mut random = Random::new(2);
    let mut rows = Vec::with_capacity(count * OBJECTIVES);
    for _ in 0..count {
        let row: [f64; OBJECTIVES] = std::array::from_fn(|_| normal(&mut random).abs());
        let length = row.iter().map(|value| value * value).sum::<f64>().sqrt();
        rows.extend(row.map(|value| -value / length));
    }
    measured(asked, "props.sphere", &rows)
}

fn unit(random: &mut Random) -> f64 {
    random.between(0, (1 << 53) - 1) as f64 / (1_u64 << 53) as f64
}

/// Box and Muller, 1958.
fn normal(random: &mut Random) -> f64 {
    (-2.0 * (1.0 - unit(random)).ln()).sqrt() * (std::f64::consts::TAU * unit(random)).cos()
}

fn measured(asked: &Asked, goal: &'static str, rows: &[f64]) -> Result<Vec<Measured>> {
    let python = asked.path("--python").ok_or("no Python with `moocore` was named (--python)")?;
    let mut points = Points::new(&[Sense::Minimise; OBJECTIVES]).map_err(|refusal| refusal.to_string())?;
    for row in rows.chunks_exact(OBJECTIVES) {
        points.push(row).map_err(|refusal| refusal.to_string())?;
    }
    let mut theirs = Theirs::start(python, rows, &asked.out.join(format!("{goal}.f64")))?;
    let mut rounds = Vec::new();
    let mut size = 0;
    for _ in 0..asked.rounds() {
        let (mine, front) = seconds(|| points.front(Duplicates::Keep));
        let (other, their_size) = theirs.front()?;
        if front.len() != their_size {
            return Err(format!("our front has {} points, theirs {their_size}", front.len()).into());
        }
        size = their_size;
        println!("  {mine:.3} s against {other:.3} s, {size} on the front");
        rounds.push((1.0 / mine, 1.0 / other));
    }
    let note = format!("{} points of {OBJECTIVES} objectives, {size} on the front", points.len());
    Ok(vec![Measured::pairs(goal, "moocore", "fronts/s", &rounds).note(note)])
}
