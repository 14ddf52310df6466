// mm/oom_kill.c: oom_reaper, a kernel thread that unmaps the anonymous and private memory of OOM
// victims which are stuck.
//
//   before 4.6   there is none
//   4.6 to 4.13  at once, under oom_lock; no notification at all: start/end consumers keep stale
//                mappings of pages that are freed
//   4.14 to 4.18 an mm with notifiers is left alone: HZ of sleep with oom_lock held, taken as done
//   4.19 on      per VMA: start_nonblock; a VMA whose notifiers would have to wait is skipped, and
//                the attempt counts as failed
//   5.18 on      the first attempt is 2 HZ after the kill
// An attempt needs mmap_lock for read without waiting; up to 10 of them, HZ/10 apart, then the mm
// is given up: MMF_OOM_SKIP either way. As in Linux nobody sends `end` for a failed start (B.5).

import {PRIORITY} from '../../machine/priorities.ts';
import {type Code, Timer} from '../../machine/process.ts';
import {EAGAIN, EINTR, EINVAL, ESRCH} from '../errno.ts';
import {mmdrop, mmgrab} from '../fork_mm.ts';
import {startProcess} from '../init_task.ts';
import type {MmStruct} from '../mm_types.ts';
import {HZ, JIFFY_TICKS} from '../sched/tunables.ts';
import {WaitQueue} from '../sched/wait_queue.ts';
import type {Task} from '../task.ts';
import {isBefore} from '../version.ts';
import {unmap_single_vma} from './memory_zap.ts';
import {
  mmap_read_lock_killable,
  mmap_read_unlock,
  mmap_write_lock,
  mmap_write_unlock,
} from './mmap_lock.ts';
import {type MmuGather, tlb_finish_mmu, tlb_gather_mmu} from './mmu_gather.ts';
import {
  mm_has_notifiers,
  mmu_notifier_invalidate_range_end,
  mmu_notifier_invalidate_range_start_nonblock,
} from './mmu_notifier.ts';
import {MMU_NOTIFY_UNMAP, MmuNotifierRange} from './mmu_notifier_types.ts';
import {isOomSkipped, task_will_free_mem} from './oom_badness.ts';
import type {Oom} from './oom_kill.ts';
import {get_mm_rss} from './rss_stat.ts';
import {MMF_OOM_REAP_QUEUED, MMF_OOM_SKIP, MMF_UNSTABLE, type UserMm} from './user_mm.ts';
import {type VmArea, vma_is_anonymous} from './vma.ts';
import {VM_HUGETLB, VM_LOCKED, VM_PFNMAP, VM_SHARED} from './vma_flags.ts';

const MAX_OOM_REAP_RETRIES = 10;
const RETRY_TICKS = (HZ / 10) * JIFFY_TICKS;
const OOM_REAPER_DELAY_TICKS = 2 * HZ * JIFFY_TICKS;
/** A number that no trace has. */
const REAPER_TID = 2 ** 31 - 2048;

/** The reaper's queue and thread. */
export class OomReaper {
  /** Attempts made, and mms given up after the last of them. */
  attempts = 0;
  givenUp = 0;
  /** VMAs whose notifiers would have had to wait. */
  blockedVmas = 0;
  private readonly ready: MmStruct[] = [];
  private readonly exists: boolean;
  private readonly delayed: boolean;
  private wait: WaitQueue | null = null;

  constructor(private readonly oom: Oom) {
    const {version} = oom.k.facts;
    this.exists = !isBefore(version, '4.6');
    this.delayed = !isBefore(version, '5.18');
  }

  /** queue_oom_reaper, once for an mm. */
  *queue(t: Task, victim: Task, mm: MmStruct): Code {
    const {user} = mm;
    const {k} = this.oom;
    if (!this.exists || user === null || (user.flags & MMF_OOM_REAP_QUEUED) !== 0) return;
    user.flags |= MMF_OOM_REAP_QUEUED;
    yield* mmgrab(k, t, mm);
    this.wait ??= this.startThread(victim);
    if (!this.delayed) {
      this.wake(mm);
      return;
    }
    const {engine} = k.machine;
    const timer: Timer = new Timer(engine, () => {
      k.sched.interrupt(t.cpu, () => {
        this.wake(mm);
        return 0;
      });
      engine.unregister(timer);
    });
    engine.schedule(timer, engine.now + OOM_REAPER_DELAY_TICKS, PRIORITY.timer);
  }

  /** wake_oom_reaper. */
  private wake(mm: MmStruct): void {
    this.ready.push(mm);
    this.wait!.wakeOne();
  }

  private startThread(victim: Task): WaitQueue {
    const {k} = this.oom;
    const wait = new WaitQueue(k, 'oom_reaper_wait');
    const program = (self: Task): Code => this.run(self, wait);
    const spec = {tid: REAPER_TID, comm: 'oom_reaper', kernelThread: true, program};
    startProcess(k, spec, victim.cpu).process!.daemon = true;
    return wait;
  }

  private *run(t: Task, wait: WaitQueue): Code {
    const {k} = this.oom;
    for (;;) {
      if (t.cpu.settle()) yield;
      const mm = this.ready.shift();
      if (mm === undefined) {
        yield* wait.wait(t);
        continue;
      }
      yield* this.oom_reap_task(t, mm);
      yield* mmdrop(k, t, mm);
    }
  }

  private *oom_reap_task(t: Task, mm: MmStruct): Code {
    const {user} = mm;
    if (user === null || (user.flags & MMF_OOM_SKIP) !== 0) return;
    const {k} = this.oom;
    let attempts = 0;
    while (attempts++ < MAX_OOM_REAP_RETRIES && !(yield* this.oom_reap_task_mm(t, user))) {
      yield* k.sched.sleep(t, RETRY_TICKS);
    }
    if (attempts > MAX_OOM_REAP_RETRIES && (user.flags & MMF_OOM_SKIP) === 0) {
      this.givenUp++;
      k.checks.count('oom_reaper_given_up');
    }
    user.flags |= MMF_OOM_SKIP;
  }

  /** One attempt. False: try again later. */
  private *oom_reap_task_mm(t: Task, user: UserMm): Code<boolean> {
    const {oom} = this;
    const {k, fns} = oom;
    this.attempts++;
    const underLock = isBefore(k.facts.version, '4.19');
    if (underLock && !oom.lock.acquire(t, fns.oom_reaper)) {
      yield* oom.lock.acquireSlow(t, fns.oom_reaper);
    }
    if (t.cpu.settle()) yield;
    let done = true;
    if (!user.mmapLock.tryReadAcquire(t, fns.oom_reaper)) {
      done = false;
    } else if (this.leavesAlone(user)) {
      yield* mmap_read_unlock(t, user);
      yield* k.sched.sleep(t, HZ * JIFFY_TICKS);
    } else {
      if ((user.flags & MMF_OOM_SKIP) === 0) {
        const before = get_mm_rss(user.mm);
        done = yield* this.__oom_reap_task_mm(t, user);
        this.noteReaped(user, before - get_mm_rss(user.mm), done);
      }
      yield* mmap_read_unlock(t, user);
    }
    if (underLock && !oom.lock.release(t)) yield* oom.lock.releaseSlow(t);
    return done;
  }

  private noteReaped(user: UserMm, pages: number, done: boolean): void {
    const {k} = this.oom;
    k.checks.count('oom_reaped_pages', pages);
    const kill = this.oom.killOf(user.mm);
    if (kill === null) return;
    kill.reapedPages += pages;
    if (done) kill.reapedTick = k.machine.engine.now;
  }

  /** 4.14 to 4.18: notifiers might sleep. */
  private leavesAlone(user: UserMm): boolean {
    const {k} = this.oom;
    if (k.mm.notifierFacts.nonblock || isBefore(k.facts.version, '4.14')) return false;
    return mm_has_notifiers(user.mm);
  }

  /** __oom_reap_task_mm: mmap_lock is held for read, or nobody else is in the mm any more. */
  *__oom_reap_task_mm(t: Task, user: UserMm): Code<boolean> {
    const {k} = this.oom;
    user.flags |= MMF_UNSTABLE;
    const vmas: VmArea[] = [];
    for (let vma = user.space.tree.first; vma !== null; vma = vma.next) vmas.push(vma);
    if (!isBefore(k.facts.version, '6.18')) vmas.reverse();
    const perVma = k.mm.notifierFacts.nonblock;
    // 4.6 to 4.18: one gather for the whole mm.
    const tlb = perVma ? null : tlb_gather_mmu(user.mm);
    let all = true;
    for (const vma of vmas) {
      if (!this.canReap(vma)) continue;
      if (!(yield* this.reapVma(t, user, vma, tlb))) all = false;
    }
    if (tlb !== null) yield* tlb_finish_mmu(k, t, tlb);
    return all;
  }

  private canReap(vma: VmArea): boolean {
    // can_madv_lru_vma kept locked memory until MADV_DONTNEED_LOCKED came (5.18).
    const locked = isBefore(this.oom.k.facts.version, '5.18') ? VM_LOCKED : 0;
    if ((vma.flags & (VM_HUGETLB | VM_PFNMAP | locked)) !== 0) return false;
    return vma_is_anonymous(vma) || (vma.flags & VM_SHARED) === 0;
  }

  private *reapVma(t: Task, user: UserMm, vma: VmArea, gather: MmuGather | null): Code<boolean> {
    const {k} = this.oom;
    const {start, end} = vma;
    if (gather !== null) {
      yield* unmap_single_vma(k, t, gather, vma, start, end, null);
      return true;
    }
    const {mm} = user;
    const range = new MmuNotifierRange(MMU_NOTIFY_UNMAP, mm, vma, start, end, '__oom_reap_task_mm');
    const tlb = tlb_gather_mmu(mm);
    const result = yield* mmu_notifier_invalidate_range_start_nonblock(k, t, range);
    if (result === 0) {
      yield* unmap_single_vma(k, t, tlb, vma, start, end, null);
      yield* mmu_notifier_invalidate_range_end(k, t, range);
    } else {
      this.blockedVmas++;
    }
    yield* tlb_finish_mmu(k, t, tlb);
    return result === 0;
  }

  /** exit_mmap from 4.17 to 6.0: mm_is_oom_victim. */
  *exitReap(t: Task, user: UserMm): Code {
    const {oom} = this;
    const {fns} = oom;
    if (!oom.lock.acquire(t, fns.oom_reaper)) yield* oom.lock.acquireSlow(t, fns.oom_reaper);
    yield* this.__oom_reap_task_mm(t, user);
    if (!oom.lock.release(t)) yield* oom.lock.releaseSlow(t);
    user.flags |= MMF_OOM_SKIP;
    yield* mmap_write_lock(t, user, fns.oom_reaper);
    yield* mmap_write_unlock(t, user);
  }

  /** process_mrelease(2), 5.15+: reaps a process that dies, in the caller. 0 or -errno. */
  *process_mrelease(t: Task, target: Task): Code<number> {
    const {oom} = this;
    const {k, fns} = oom;
    t.cpu.charge(oom.costs.mreleaseTicks, fns.process_mrelease);
    if (t.cpu.settle()) yield;
    // pidfd_get_task: released already.
    if (target.listSlot < 0) return -ESRCH;
    const p = yield* k.taskList.find_lock_task_mm(t, target, fns.process_mrelease);
    if (p === null) return -ESRCH;
    const mm = p.mm!;
    const lock = p.allocLock!;
    if (!lock.release(t)) yield* lock.releaseSlow(t);
    if (!(yield* task_will_free_mem(k, t, p, fns))) return isOomSkipped(mm) ? 0 : -EINVAL;
    const {user} = mm;
    if (user === null) return 0;
    yield* mmgrab(k, t, mm);
    if ((yield* mmap_read_lock_killable(t, user, fns.process_mrelease, '5.15')) !== 0) {
      yield* mmdrop(k, t, mm);
      return -EINTR;
    }
    let done = true;
    if ((user.flags & MMF_OOM_SKIP) === 0) {
      done = yield* this.__oom_reap_task_mm(t, user);
    }
    yield* mmap_read_unlock(t, user);
    yield* mmdrop(k, t, mm);
    return done ? 0 : -EAGAIN;
  }
}
