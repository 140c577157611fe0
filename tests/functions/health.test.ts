import { beforeAll, expect, test } from 'vitest'
import { callFunction, provider } from '../support/shop.ts'
import { openSql } from '../support/sql.ts'
import { type TestStack, testStack } from '../support/stack.ts'

let stack: TestStack

beforeAll(async () => {
  stack = await testStack()
})

test('/health is 200 while the process lives, for anybody', async () => {
  const response = await fetch(`${stack.functionsUrl}/health`)
  expect(response.status).toBe(200)
  expect(await response.json()).toMatchObject({ success: true, data: { status: 'alive' } })
})

test('/health/ready says the state and latency of each thing it depends on', async () => {
  const { status, json } = await callFunction(stack, '/health/ready')
  expect([status, json.data]).toEqual([200, {
    status: 'ready',
    checks: {
      database: { state: 'up', needed: true, latencyMs: expect.any(Number) },
      audit: { state: 'up', needed: false, latencyMs: expect.any(Number) },
      payments: { state: 'up', needed: false, latencyMs: expect.any(Number) },
    },
  }])
})

test('/health/ready is degraded while the audit trail has gaps that nobody has looked at', async () => {
  const admin = openSql(stack.db.adminUrl)
  await admin`select audit.count_gap('public.orders', 'UPDATE', '53100', 'disk full')`
  const { status, json } = await callFunction(stack, '/health/ready')
  expect([status, json.data.status, json.data.checks.audit.state]).toEqual([200, 'degraded', 'down'])

  await admin`select audit.see_gaps('a bigger disk')`
  expect((await callFunction(stack, '/health/ready')).json.data.status).toBe('ready')
})

test.each(['fail', 'hang'] as const)(
  '/health/ready is degraded, not away, when the payment provider does %s',
  async (mode) => {
    await provider(stack).behave({ mode })
    const { status, json } = await callFunction(stack, '/health/ready')
    expect([status, json.data.status, json.data.checks.payments.state]).toEqual([200, 'degraded', 'down'])
  },
)
