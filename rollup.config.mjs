// The programs in dist/bin, of the modules that tsc has compiled: see docs/decisions.md.

import {rmSync} from 'node:fs';

const CHUNKS = 'dist/chunks';

rmSync(CHUNKS, {recursive: true, force: true});

export default {
  input: Object.fromEntries(
    ['bin/mmreplay', 'bin/bench_child', 'bin/pool/worker'].map((name) => [name, `dist/${name}.js`]),
  ),
  output: {dir: 'dist', chunkFileNames: 'chunks/[name]-[hash].js', sourcemap: true},
  // Packages and node: stay imports.
  external: /^[a-z@]/,
  onwarn(warning, warn) {
    if (warning.code !== 'CIRCULAR_DEPENDENCY') warn(warning);
  },
};
