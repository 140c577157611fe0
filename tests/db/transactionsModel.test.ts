/** Random interleavings of begin, execute, rollbackTo, commit and rollback, against a model in memory. */
import fc from 'fast-check'
import { beforeAll, expect, test } from 'vitest'
import {
  createTransactionManager,
  type RestorePoint,
  type TransactionManager,
} from '../../supabase/functions/_shared/db/transactionManager.ts'
import { onEachPostgres } from '../support/database.ts'
import { ada, type TransactionBed, transactionBed } from '../support/transactions.ts'

/** Who has three transactions open at a time; each writes slots of its own, so that nobody waits for anybody. */
const players = 3
const slotsEach = 4

type Step =
  | { kind: 'begin'; player: number }
  | { kind: 'commit'; player: number }
  | { kind: 'rollback'; player: number }
  | { kind: 'set' | 'add'; player: number; slot: number; n: number }
  | { kind: 'delete' | 'insert'; player: number; slot: number }
  | { kind: 'rollbackTo'; player: number; point: number }

const player = fc.nat({ max: players - 1 })
const slot = fc.nat({ max: slotsEach - 1 })
const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.oneof(
    { weight: 3, arbitrary: fc.record({ kind: fc.constant('begin' as const), player }) },
    { weight: 2, arbitrary: fc.record({ kind: fc.constant('commit' as const), player }) },
    { weight: 1, arbitrary: fc.record({ kind: fc.constant('rollback' as const), player }) },
    {
      weight: 6,
      arbitrary: fc.record({
        kind: fc.constantFrom('set' as const, 'add' as const),
        player,
        slot,
        n: fc.nat(99),
      }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constantFrom('delete' as const, 'insert' as const), player, slot }),
    },
    {
      weight: 4,
      arbitrary: fc.record({ kind: fc.constant('rollbackTo' as const), player, point: fc.nat(9) }),
    },
  ),
  { minLength: 8, maxLength: 40 },
)

type Rows = Map<number, number>

/** One player: what is committed, and what its open transaction sees, with the state at each restore point. */
interface Model {
  committed: Rows
  open?: { id: string; rows: Rows; points: { point: RestorePoint; rows: Rows }[] }
}

onEachPostgres('the stepwise face', (pg) => {
  let bed: TransactionBed
  let manager: TransactionManager

  beforeAll(async () => {
    bed = await transactionBed(pg.major)
    manager = createTransactionManager(bed.open({ max: players }))
  })

  test('behaves as its model, whatever is done in whatever order', async () => {
    await fc.assert(
      fc.asyncProperty(steps, async (sequence) => {
        await bed.admin`delete from public.slots`
        await bed.admin`insert into public.slots select generate_series(0, ${players * slotsEach - 1})`
        const models = Array.from({ length: players }, (_, p): Model => ({
          committed: new Map(Array.from({ length: slotsEach }, (_, s) => [p * slotsEach + s, 0])),
        }))
        for (const step of sequence) await play(models[step.player]!, step)
        for (const { open } of models) if (open) await manager.rollback(open.id)
        expect(await stored()).toEqual(new Map(models.flatMap(({ committed }) => [...committed])))
        expect(manager.getActiveTransactions()).toEqual([])
      }),
      { numRuns: 40 },
    )
  }, 60_000)

  const stored = async () =>
    new Map((await bed.admin`select id, n from public.slots order by id`).map(({ id, n }) => [id, n]))

  async function play(model: Model, step: Step): Promise<void> {
    const { open } = model
    if (step.kind === 'begin') {
      if (open) return
      model.open = { id: await manager.begin({ as: ada }), rows: new Map(model.committed), points: [] }
      return
    }
    if (!open) return
    switch (step.kind) {
      case 'commit':
        await manager.commit(open.id)
        model.committed = open.rows
        model.open = undefined
        return
      case 'rollback':
        await manager.rollback(open.id)
        model.open = undefined
        return
      case 'rollbackTo': {
        if (open.points.length === 0) return
        const index = step.point % open.points.length
        const { point, rows } = open.points[index]!
        await manager.rollbackTo(open.id, point)
        const undone = open.points.splice(index + 1)
        open.rows = new Map(rows)
        for (const { point } of undone) {
          await expect(manager.rollbackTo(open.id, point)).rejects.toThrow(RangeError)
        }
        return
      }
      default:
        await operate(open, step, step.player * slotsEach + step.slot)
    }
  }

  async function operate(
    open: NonNullable<Model['open']>,
    step: Extract<Step, { slot: number }>,
    id: number,
  ): Promise<void> {
    const before = new Map(open.rows)
    const here = open.rows.has(id)
    const result = await (() => {
      switch (step.kind) {
        case 'set':
          return manager.execute(open.id, 'slots', 'update', { n: step.n }, { where: { id } })
        case 'add':
          return manager.execute(open.id, 'slots', 'upsert', { id, n: step.n }, { onConflict: ['id'] })
        case 'delete':
          return manager.execute(open.id, 'slots', 'delete', { where: { id } })
        case 'insert':
          return manager.execute(open.id, 'slots', 'insert', { id })
      }
    })()
    // An insert of what is there fails, and undoes itself alone.
    expect(result.success).toBe(!(step.kind === 'insert' && here))
    open.points.push({ point: result.restorePoint, rows: before })
    if (step.kind === 'delete') open.rows.delete(id)
    if (step.kind === 'add' || (step.kind === 'set' && here)) open.rows.set(id, step.n)
    if (step.kind === 'insert' && !here) open.rows.set(id, 0)
    const seen = await manager.execute(open.id, 'slots', 'select', { where: { id } })
    open.points.push({ point: seen.restorePoint, rows: new Map(open.rows) })
    expect(seen.data).toEqual(open.rows.has(id) ? [{ id, n: open.rows.get(id) }] : [])
  }
})
