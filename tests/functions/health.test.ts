import { beforeAll, expect, test } from 'vitest'
import { callFunction, provider } from '../support/shop.ts'
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
      payments: { state: 'up', needed: false, latencyMs: expect.any(Number) },
    },
  }])
})

test.each(['fail', 'hang'] as const)(
  '/health/ready is degraded, not away, when the payment provider does %s',
  async (mode) => {
    await provider(stack).behave({ mode })
    const { status, json } = await callFunction(stack, '/health/ready')
    expect([status, json.data.status, json.data.checks.payments.state]).toEqual([200, 'degraded', 'down'])
  },
)
