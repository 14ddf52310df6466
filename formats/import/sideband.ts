// The side-band records of perf in text form: who was there (COMM, FORK, EXIT), what was mapped
// (MMAP, MMAP2), what was lost. Addresses are exact; file offsets become pages.

import {FieldError, hexAt, numberAt, type Arg} from './fields.ts';
import type {RawEvent} from './raw.ts';

/** A record, taken apart. */
export type SideBand =
  | {type: 'comm'; tid: number; tgid: number; comm: string; exec: boolean}
  | {type: 'fork'; tid: number; tgid: number; parentTid: number; parentTgid: number}
  | {type: 'exit'; tid: number; tgid: number; parentTid: number; parentTgid: number}
  | {
      type: 'map';
      tid: number;
      tgid: number;
      addr: Arg;
      len: Arg;
      pgoff: Arg;
      prot: number;
      flags: number;
      file: string;
      /** Device and inode; '' where there is none. */
      inode: string;
    }
  | {type: 'lost'; count: Arg};

const COMM = /^( exec)?: ?(.*):(-?\d+)\/(-?\d+)$/;
const FAMILY = /^\((-?\d+):(-?\d+)\):\((-?\d+):(-?\d+)\)/;
const MAP =
  /^(-?\d+)\/(-?\d+): \[0x([0-9a-f]+)\(0x([0-9a-f]+)\) @ (?:0x)?([0-9a-f]+)([^\]]*)\]: (\S+) ?(.*)$/;
const DEVICE = /^ ([0-9a-f]+:[0-9a-f]+) (\d+)/;

const MAP_SHARED = 1;
const MAP_PRIVATE = 2;
const MAP_ANONYMOUS = 0x20;
const MAP_GROWSDOWN = 0x100;

function protOf(letters: string): number {
  return (letters[0] === 'r' ? 1 : 0) | (letters[1] === 'w' ? 2 : 0) | (letters[2] === 'x' ? 4 : 0);
}

function flagsOf(letters: string, file: string): number {
  const shared = letters.endsWith('s') ? MAP_SHARED : MAP_PRIVATE;
  const anonymous = file.startsWith('//anon') || file.startsWith('[') ? MAP_ANONYMOUS : 0;
  return shared | anonymous | (file === '[stack]' ? MAP_GROWSDOWN : 0);
}

/**
 * A name that tells objects apart: a deleted file's name says nothing, so device and inode join it.
 */
function fileName(file: string, where: string): string {
  const device = DEVICE.exec(where);
  return file.endsWith(' (deleted)') && device !== null
    ? `${file} ${device[1]}:${device[2]}`
    : file;
}

function inodeOf(where: string): string {
  const device = DEVICE.exec(where);
  return device === null || device[2] === '0' ? '' : `${device[1]}:${device[2]}`;
}

function pages(bytes: Arg): Arg {
  return typeof bytes === 'number' ? Math.floor(bytes / 4096) : bytes >> 12n;
}

function mapping(payload: string): SideBand {
  const match = MAP.exec(payload.trimStart());
  if (match === null)
    throw new FieldError(`a mapping "[addr(len) @ offset]: rwxp file" is missing`);
  const [, tgid, tid, addr, len, offset, where, letters, file] = match;
  return {
    type: 'map',
    tid: Number(tid),
    tgid: Number(tgid),
    addr: hexAt(addr, 0),
    len: hexAt(len, 0),
    pgoff: pages(hexAt(offset, 0)),
    prot: protOf(letters),
    flags: flagsOf(letters, file),
    file: fileName(file, where),
    inode: inodeOf(where),
  };
}

function family(type: 'fork' | 'exit', payload: string): SideBand {
  const match = FAMILY.exec(payload);
  if (match === null) throw new FieldError('"(pid:tid):(ppid:ptid)" is missing');
  const [, tgid, tid, parentTgid, parentTid] = match;
  return {
    type,
    tid: Number(tid),
    tgid: Number(tgid),
    parentTid: Number(parentTid),
    parentTgid: Number(parentTgid),
  };
}

/**
 * Takes a PERF_RECORD_* event apart; undefined for records that say nothing about memory or tasks.
 */
export function sideBand(raw: RawEvent): SideBand | undefined {
  const {payload} = raw;
  switch (raw.name) {
    case 'PERF_RECORD_COMM': {
      const match = COMM.exec(payload);
      if (match === null) throw new FieldError('"comm:pid/tid" is missing');
      const [, exec, comm, tgid, tid] = match;
      return {type: 'comm', tid: Number(tid), tgid: Number(tgid), comm, exec: exec !== undefined};
    }
    case 'PERF_RECORD_FORK':
      return family('fork', payload);
    case 'PERF_RECORD_EXIT':
      return family('exit', payload);
    case 'PERF_RECORD_MMAP':
    case 'PERF_RECORD_MMAP2':
      return mapping(payload);
    case 'PERF_RECORD_LOST':
    case 'PERF_RECORD_LOST_SAMPLES': {
      const at = payload.search(/\d/);
      return {type: 'lost', count: numberAt(payload, Math.max(at, 0))};
    }
    default:
      return undefined;
  }
}
