// The bounds of a trace file. A reader refuses what lies beyond them before it allocates anything
// for it, so that a damaged length costs an error message and not the memory of the host.

/** Greatest length of one packet, bytes. */
export const MAX_PACKET_BYTES = 64 * 1024 * 1024;
/** Greatest number of events in one block. */
export const MAX_BLOCK_EVENTS = 65536;
/** Events that the writer gathers into one block. */
export const BLOCK_EVENTS = 4096;
/** Greatest length of one string, UTF-16 units. */
export const MAX_STRING_LENGTH = 1 << 20;
/** Greatest number of strings in a file. */
export const MAX_STRINGS = 1 << 24;
/** Greatest number of task table entries in a file. */
export const MAX_TASKS = 1 << 24;
/** Greatest cpu number, exclusive (columns hold it in 16 bits). */
export const MAX_CPUS = 65536;
/** What every header starts with. */
export const MAGIC = 'mmreplay-trace';
/** Version of the schema that this code reads and writes. */
export const SCHEMA_VERSION = 1;
