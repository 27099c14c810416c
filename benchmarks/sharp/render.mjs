// Renders one picture by sharp, for benchmarks/rendering.py.
//
//     node render.mjs PICTURE EXTENSION IN_FLIGHT THREADS
//
// For each line N on standard input it renders the picture N times, IN_FLIGHT at once, and answers
// with a line. The last renditions are then written to the files that the arguments after these name.
import { readFileSync, writeFileSync } from "node:fs";
import { createInterface } from "node:readline";
import sharp from "sharp";

const SIDES = [1280, 640, 160];
const [picture, format, inFlight, threads, ...outputs] = process.argv.slice(2);
const data = readFileSync(picture);
sharp.concurrency(Number(threads));
sharp.cache(false);

const rendition = (side) =>
  sharp(data, { animated: format === "gif" })
    .autoOrient()
    .resize(side, side, { fit: "inside", withoutEnlargement: true })
    .toFormat(format, ["png", "gif"].includes(format) ? {} : { quality: 80 })
    .toBuffer();

let last = [];
for await (const line of createInterface({ input: process.stdin })) {
  let left = Number(line);
  const work = async () => {
    while (left-- > 0) last = await Promise.all(SIDES.map(rendition));
  };
  await Promise.all(Array.from({ length: Number(inFlight) }, work));
  console.log("done");
}
outputs.forEach((path, index) => writeFileSync(path, last[index]));
