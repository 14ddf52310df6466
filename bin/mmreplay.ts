#!/usr/bin/env node
// Entry point of the command line. Everything is in main(), which tests call.

import {main} from './main.ts';
import {standardStreams} from './streams.ts';

const streams = standardStreams();
process.exitCode = await main(process.argv.slice(2), streams.out, streams.err);
