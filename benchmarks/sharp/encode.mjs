// Encodes a picture as JPEG by sharp, for benchmarks/bytes.py.
//
//     node encode.mjs PICTURE MOZJPEG FOLDER QUALITY...
//
// writes FOLDER/QUALITY.jpg for each quality.
import sharp from "sharp";

const [picture, mozjpeg, folder, ...qualities] = process.argv.slice(2);
for (const quality of qualities.map(Number)) {
  await sharp(picture)
    .jpeg({ quality, mozjpeg: mozjpeg === "true" })
    .toFile(`${folder}/${quality}.jpg`);
}
