// Names for mapped files. A file may have several names (hard links: one page cache), and a name
// may come to mean another file (a compiler writes its output anew). The recorder's MMAP2 records
// tell by device and inode: a file keeps the first name that it was mapped under, and a name that
// another file has already gets the inode added. Memory is bounded by the number of files mapped.

/** Names by file. */
export class MappedFiles {
  private readonly nameOfInode = new Map<string, string>();
  private readonly inodeOfName = new Map<string, string>();

  /**
   * What a file that a record calls `file` is called; `inode` is its device and inode, '' for none.
   */
  nameOf(file: string, inode: string): string {
    if (inode === '') return file;
    const known = this.nameOfInode.get(inode);
    if (known !== undefined) return known;
    const owner = this.inodeOfName.get(file);
    const name = owner === undefined ? file : `${file} ${inode}`;
    if (owner === undefined) this.inodeOfName.set(file, inode);
    this.nameOfInode.set(inode, name);
    return name;
  }
}
