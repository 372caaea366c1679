/*---
{ "package": "jimp", "version": "1.6.1", "tree": "documents",
  "exercises": "a picture resized and rotated, PNG and JPEG out and back",
  "limits": { "memoryMb": 512 },
  "expect": { "json": { "size": [2, 4], "color": 4278190335, "mime": "image/jpeg" } } }
---*/
import { Jimp } from "jimp";

export default async () => {
  const picture = new Jimp({ width: 8, height: 4, color: 0xff0000ff });
  picture.resize({ w: 4, h: 2 }).rotate(90);
  const png = await Jimp.read(await picture.getBuffer("image/png"));
  const jpeg = await Jimp.read(await picture.getBuffer("image/jpeg"));
  return { size: [png.width, png.height], color: png.getPixelColor(1, 1), mime: jpeg.mime };
};
