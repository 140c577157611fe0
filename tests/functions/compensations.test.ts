/**
 * From the cron job to the handler: what a dead isolate has left is due, the database rings the function through the
 * gateway, with address and key from the Vault, and the function undoes it.
 */
import { fileURLToPath } from 'node:url'
import { beforeAll, beforeEach, describe, expect, test } from 'vitest'
import { localKeys } from '../../local/keys.ts'
import { openProject } from '../../local/project.ts'
import { startStack } from '../../local/stack.ts'
import { openSql, type Sql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'
import { waitFor } from '../support/wait.ts'

const root = fileURLToPath(new URL('../fixtures/compensations', import.meta.url))

let stack: TestStack
let admin: Sql

beforeAll(async () => {
  stack = await testStack({ functions: root })
  admin = openSql(stack.db.adminUrl, { max: 2 })
  await admin`create table public.undone (effect_key uuid, name text, attempt integer)`
  await admin`grant all on public.undone to service_role`
})

beforeEach(() => admin`truncate holdfast.compensations, public.undone`)

const ask = async (path: string, headers: Record<string, string>, body?: unknown) => {
  const response = await fetch(`${stack.functionsUrl}/effects${path}`, {
    method: 'POST',
    headers: { ...headers, ...(body !== undefined && { 'content-type': 'application/json' }) },
    body: body === undefined ? undefined : JSON.stringify(body),
  })
  return { status: response.status, json: await response.json() }
}
const act = (name: string, then = 'answer') => ask('', { apikey: localKeys.publishable }, { name, then })
const sweep = () => ask('/compensations', { apikey: localKeys.secret })
const makeDue = () =>
  admin`update holdfast.compensations set due_at = clock_timestamp() where status <> 'undone'`
const ring = async () => Number((await admin`select holdfast.ring_compensations() as rung`)[0]?.rung)
const effects =
  async () => [...await admin`select status, attempts::int from holdfast.compensations order by position`]
const undone = async () => [...await admin`select name, attempt from public.undone order by name, attempt`]

describe('what an isolate leaves that dies after it has recorded an effect', () => {
  test('is undone when the cron job rings', async () => {
    expect((await act('ticket', 'exit')).status).toBeGreaterThanOrEqual(500)
    expect(await ring()).toBe(0)
    await makeDue()
    expect(await ring()).toBe(1)
    await waitFor(async () => (await effects())[0]?.status === 'undone', { what: 'the effect to be undone' })
    expect(await undone()).toEqual([{ name: 'ticket', attempt: 1 }])
    expect(await ring()).toBe(0)
  })

  test('is undone by another isolate when the handler ends its isolate as well', async () => {
    await act('deadly')
    await makeDue()
    expect((await sweep()).status).toBeGreaterThanOrEqual(500)
    expect(await effects()).toEqual([{ status: 'running', attempts: 1 }])
    expect((await sweep()).json.data).toEqual({ undone: 0, failed: 0 })
    await makeDue()
    expect((await sweep()).json.data).toEqual({ undone: 1, failed: 0 })
    expect(await undone()).toEqual([{ name: 'deadly', attempt: 1 }, { name: 'deadly', attempt: 2 }])
  })
})

describe('POST /compensations', () => {
  test('answers how many effects were undone and how many were not', async () => {
    for (const name of ['one', 'stuck', 'two']) await act(name)
    await makeDue()
    expect(await sweep()).toMatchObject({
      status: 200,
      json: { success: true, data: { undone: 2, failed: 1 } },
    })
    expect(await effects()).toEqual([
      { status: 'undone', attempts: 1 },
      { status: 'retryable', attempts: 1 },
      { status: 'undone', attempts: 1 },
    ])
  })

  test.each([
    ['nothing', {}, 401, 'UNAUTHENTICATED'],
    ['a publishable key', { apikey: localKeys.publishable }, 403, 'FORBIDDEN'],
    [
      'a key of another project',
      { apikey: 'sb_secret_0000000000000000000000_00000000' },
      401,
      'UNAUTHENTICATED',
    ],
  ])('is refused to who shows %s, and undoes nothing', async (_, headers, status, code) => {
    await act('one')
    await makeDue()
    expect(await ask('/compensations', headers as Record<string, string>)).toMatchObject({
      status,
      json: { error: { code } },
    })
    expect(await effects()).toEqual([{ status: 'pending', attempts: 0 }])
    expect(await undone()).toEqual([])
  })
})

test('the Vault holds address and key of the stack that was started last', async () => {
  const secrets = async () =>
    Object.fromEntries(
      (await admin`select name, decrypted_secret from vault.decrypted_secrets where name like 'holdfast_%'`)
        .map(({ name, decrypted_secret }) => [name, decrypted_secret]),
    )
  expect(await secrets()).toEqual({ holdfast_url: stack.url, holdfast_secret_key: localKeys.secret })
  const start = () =>
    startStack({
      project: openProject({ root }),
      port: 0,
      databaseUrl: stack.databaseUrl,
      adminUrl: stack.db.adminUrl,
    })
  const others = await Promise.all([start(), start()])
  try {
    const { holdfast_url, ...rest } = await secrets()
    expect(others.map(({ url }) => url)).toContain(holdfast_url)
    expect(rest).toEqual({ holdfast_secret_key: localKeys.secret })
  } finally {
    await Promise.all(others.map((other) => other.close()))
  }
})
