/** withIdempotency in mode leased in a real pipeline and in a real Hono app, over HTTP, on a real server. */
import { afterAll, beforeAll, describe, expect, test } from 'vitest'
import type { Db } from '../../supabase/functions/_shared/db/client.ts'
import { sql } from '../../supabase/functions/_shared/db/client.ts'
import { createTransactionManager } from '../../supabase/functions/_shared/db/transactionManager.ts'
import { adaId, adapters, note, type NotesDatabase, notesDatabase, post, serve } from '../support/adapters.ts'

let base: NotesDatabase
let db: Db

beforeAll(async () => {
  base = await notesDatabase()
  db = base.open()
})

afterAll(() => base.close())

/** What one test writes and asks begins with a name of its own. */
let tests = 0
const fresh = () => `n${++tests}`
const notes = (prefix: string) => base.notes(prefix)

describe.each(adapters)('$name: withIdempotency in mode leased', ({ leased }) => {
  test('replays, and tells an attempt that follows one without an answer', async () => {
    const name = fresh()
    const calls: unknown[][] = []
    const url = serve(leased({ db, log: base.log }, (_request, { idempotency: call }) => {
      calls.push([call.key, call.effectId, call.resumed, call.attempt])
      if (calls.length === 1) throw new Error('after the effect')
      return Promise.resolve(new Response('charged', { status: 201 }))
    }))
    const failed = await post(url, name)
    expect(failed.status).toBe(500)
    await failed.text()
    for (const replayed of [null, 'true']) {
      const response = await post(url, name)
      expect([response.status, await response.text(), response.headers.get('idempotency-replayed')])
        .toEqual([201, 'charged', replayed])
    }
    const effectId = calls[0]![1]
    expect(effectId).toMatch(/^[0-9a-f-]{36}$/)
    expect(calls).toEqual([[name, effectId, false, 1], [name, effectId, true, 2]])
  })

  test('complete() stores the answer with the business transaction, or not at all', async () => {
    const name = fresh()
    const manager = createTransactionManager(db, { log: base.log, functionName: 'shop' })
    let twice = true
    let dies = false
    const url = serve(leased({ db, log: base.log }, async (request, { idempotency }) => {
      const response = await manager.run({ as: actor(request) }, async (tx) => {
        await tx.query(note(name))
        if (twice) await tx.query(note(name))
        return await idempotency.complete(tx, new Response('charged and kept', { status: 201 }))
      })
      if (dies) throw new Error('after the commit')
      return response
    }))
    const refused = await post(url, name)
    expect(refused.status).toBe(500)
    await refused.text()
    expect(await notes(name)).toEqual([])

    twice = false
    dies = true
    await (await post(url, name)).text()
    expect(await notes(name)).toEqual([name])
    const replayed = await post(url, name)
    expect([replayed.status, await replayed.text(), replayed.headers.get('idempotency-replayed')])
      .toEqual([201, 'charged and kept', 'true'])
    expect(await notes(name)).toEqual([name])
  })

  test('runs once for one key sent twenty times at once to two isolates', async () => {
    const name = fresh()
    let runs = 0
    const isolate = () => {
      const own = base.open()
      return serve(leased({ db: own, log: base.log }, async () => {
        runs++
        await own.owner.query(sql`select pg_sleep(0.05)`)
        return new Response(`run ${runs}`)
      }))
    }
    const urls = [isolate(), isolate()]
    const responses = await Promise.all(Array.from({ length: 20 }, (_, i) => post(urls[i % 2]!, name)))
    const bodies = await Promise.all(responses.map((response) => response.text()))
    expect(new Set(bodies)).toEqual(new Set(['run 1']))
    expect(runs).toBe(1)
  })

  test('is refused while the store is away, or announces that only this isolate knows', async () => {
    const gone = base.open()
    await gone.close()
    const handler = () => Promise.resolve(new Response('fine'))
    const closed = await post(serve(leased({ db: gone, log: base.log }, handler)), fresh())
    expect([closed.status, (await closed.json()).error.code]).toEqual([503, 'SERVICE_UNAVAILABLE'])
    const local = await post(
      serve(leased({ db: gone, log: base.log, onUnavailable: 'local' }, handler)),
      fresh(),
    )
    expect([local.status, await local.text(), local.headers.get('idempotency-store')]).toEqual([
      200,
      'fine',
      'local',
    ])
  })

  test('runs without a key where none is required', async () => {
    const calls: unknown[] = []
    const url = serve(
      leased({ db, log: base.log, required: false }, async (_request, { idempotency: call }) => {
        calls.push([call.key, call.resumed, call.attempt])
        return await Promise.resolve(new Response('fine'))
      }),
    )
    expect(await (await post(url)).text()).toBe('fine')
    expect(calls).toEqual([[undefined, false, 1]])
  })
})

const actor = (_request: Request) => ({
  caller: { kind: 'user', role: 'authenticated', userId: adaId, claims: { sub: adaId } },
} as const)
